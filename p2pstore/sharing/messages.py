"""What processes of a host say to one another, one packet a message. Pure."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

DIGEST_BYTES = 32
_MESSAGE = struct.Struct("<BxxxIQ")
MAX_PACKET = 64
"""Bytes; each is smaller."""


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
    view: bytes = b""

    def pack(self) -> bytes:
        """The packet."""
        return _MESSAGE.pack(self.kind, self.number, self.chunk) + self.view


def unpack(packet: bytes) -> Message:
    """The inverse. Raises ``ValueError``."""
    if len(packet) < _MESSAGE.size:
        raise ValueError("a packet is too short")
    kind, number, chunk = _MESSAGE.unpack_from(packet)
    view = packet[_MESSAGE.size :]
    found = Message(Kind(kind), chunk, number, view)
    if len(view) != (DIGEST_BYTES if found.kind is Kind.VIEW else 0):
        raise ValueError("a packet is of another length")
    return found
