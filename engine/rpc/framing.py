"""coro_rpc's frames: a header, and a body of struct_pack's. No sockets here.

Source: yalantinglibs' ``coro_rpc_protocol.hpp``. All numbers are little-endian. Of a request: magic, version,
serialization, message type (a byte each), then sequence number, function, length of the body and of an attachment
(u32 each); of an answer an error takes the place of the serialization, and there is no function. Answers may come in
another order than the requests; the sequence number tells which is whose.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from engine.errors import RemoteProtocolError

MAX_FRAME = 16 << 20
"""Largest frame that is accepted, header and all, bytes; 10,000 keys of 200 bytes need 2 MiB."""

MAGIC = 21
_MAGIC_MASK = 0x00FFFFFF
"""Magic, version 0 and struct_pack, which is 0, too; the message type is not looked at, as upstream does not."""

REQUEST = Struct("<IIIII")
ANSWER = Struct("<IIII")
HEAD = REQUEST.size
WITH_HASH = Struct("<IIIIII")
"""A request's header, and how its body begins: with the hash of its type."""

_ERROR_SHIFT = 16

BAD_ARGUMENTS = 4
FAILED = 10
NO_FUNCTION = 11
"""What a call is refused with: it cannot be read, nobody here knows it, or it failed. Clients say ``RPC_FAILED``."""


class Request(NamedTuple):
    """A call as it came."""

    sequence: int
    function: int
    body: bytes


class Answer(NamedTuple):
    """An answer as it came; the body of one with an error is a message of one string."""

    sequence: int
    error: int
    body: bytes


class Splitter:
    """Cuts what a connection brings into frames. What is not whole yet is kept, and never more than one frame of it."""

    __slots__ = ("_header", "_needed", "_parts", "limit", "peer")

    def __init__(self, *, peer: str, answers: bool = False, limit: int = MAX_FRAME) -> None:
        """``peer`` is named in errors; ``answers`` says that it is a server."""
        self.peer = peer
        self.limit = limit
        self._header = ANSWER if answers else REQUEST
        self._parts = bytearray()
        self._needed = 0

    @property
    def kept(self) -> int:
        """How much waits for the rest of its frame, bytes."""
        return len(self._parts)

    def requests(self, data: bytes) -> list[Request]:
        """The calls that are whole by now. Raises ``RemoteProtocolError``; nothing more is to be fed then."""
        if self._parts:
            data = self._joined(data)
        found: list[Request] = []
        at, end = 0, len(data)
        while end - at >= 20:
            magic, sequence, function, length, attached = REQUEST.unpack_from(data, at)
            if magic & _MAGIC_MASK != MAGIC:
                raise self._strange(data, at)
            start = at + 20
            stop = start + length
            if stop + attached > end:
                self._keep(data, at, 20 + length + attached)
                return found
            found.append(Request(sequence, function, data[start:stop]))
            at = stop + attached
        if at != end:
            self._keep(data, at, 20)
        return found

    def answers(self, data: bytes) -> list[Answer]:
        """The answers that are whole by now. Raises ``RemoteProtocolError``; nothing more is to be fed then."""
        if self._parts:
            data = self._joined(data)
        found: list[Answer] = []
        at, end = 0, len(data)
        while end - at >= 16:
            magic, sequence, length, attached = ANSWER.unpack_from(data, at)
            if magic & 0xFFFF != MAGIC:
                raise self._strange(data, at)
            start = at + 16
            stop = start + length
            if stop + attached > end:
                self._keep(data, at, 16 + length + attached)
                return found
            found.append(Answer(sequence, magic >> _ERROR_SHIFT & 0xFF, data[start:stop]))
            at = stop + attached
        if at != end:
            self._keep(data, at, 16)
        return found

    def _joined(self, data: bytes) -> bytes:
        """All that is there, once it is enough for a frame; until then nothing, so that it is copied once."""
        self._parts += data
        if len(self._parts) < self._needed:
            return b""
        whole = bytes(self._parts)
        self._parts.clear()
        return whole

    def _keep(self, data: bytes, at: int, needed: int) -> None:
        if needed > self.limit:
            raise RemoteProtocolError(
                peer=self.peer, detail=f"a frame of {needed} bytes; at most {self.limit} are taken"
            )
        self._parts += memoryview(data)[at:]
        self._needed = needed

    def _strange(self, data: bytes, at: int) -> RemoteProtocolError:
        head = data[at : at + 4]
        hint = ": that is HTTP, as a metrics port speaks it" if head == b"HTTP" else ""
        return RemoteProtocolError(peer=self.peer, detail=f"no frame begins with {head.hex(' ')}{hint}")


def request(sequence: int, function: int, body: bytes) -> bytes:
    """A call as a frame."""
    return REQUEST.pack(MAGIC, sequence, function, len(body), 0) + body


def answer(sequence: int, body: bytes, error: int = 0) -> bytes:
    """An answer as a frame."""
    return ANSWER.pack(MAGIC | error << _ERROR_SHIFT, sequence, len(body), 0) + body


def answer_head(sequence: int, length: int) -> bytes:
    """How the frame of an answer begins whose body, of so many bytes, follows."""
    return ANSWER.pack(MAGIC, sequence, length, 0)
