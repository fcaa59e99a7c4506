"""What processes of a host say to one another: packets of one size. Pure."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

DIGEST_BYTES = 32
_MESSAGE = struct.Struct(f"<BxxxIQ{DIGEST_BYTES}s")
PACKET_BYTES = _MESSAGE.size
_NO_VIEW = bytes(DIGEST_BYTES)


class Kind(IntEnum):
    """What a message says."""

    PULSE = 1
    """I am alive."""
    OFFERED = 2
    """A chunk that I have brought lies in a buffer of mine."""
    COPIED = 3
    """I have copied that chunk."""
    COUNTS = 4
    """I have heard so, and it was there until then."""
    CLOSED = 5
    """I read nothing more of yours."""
    VIEW = 6
    """What I take all of us to want; the first message."""


class Message(NamedTuple):
    """``number`` is that of the buffer, of ``OFFERED``, and ``view`` of ``VIEW``: a digest."""

    kind: Kind
    chunk: int = 0
    number: int = 0
    view: bytes = _NO_VIEW

    def pack(self) -> bytes:
        """The packet."""
        return _MESSAGE.pack(self.kind, self.number, self.chunk, self.view)


class Heard:
    """Messages out of what comes, however it is cut."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Those that are whole by now. Raises ``ValueError`` for what is none."""
        self._rest += data
        count = len(self._rest) // PACKET_BYTES
        whole, self._rest = self._rest[: count * PACKET_BYTES], self._rest[count * PACKET_BYTES :]
        return [_unpacked(*fields) for fields in _MESSAGE.iter_unpack(whole)]


def _unpacked(kind: int, number: int, chunk: int, view: bytes) -> Message:
    return Message(Kind(kind), chunk, number, view)
