"""One request and its reply, as both ends see it: what may come next, and what the bytes that came mean. No sockets.

The bytes are laid out as ``engine.protocol.wire`` says. Three readers and writers share them:

- ``RequestReader``, the server's: bytes of a connection in, requests out.
- ``ReplyWriter``, the server's: what to send and to take for one request, in order.
- ``ReplyReader``, the client's: whether a request was granted, refused or cut off, and how much of its body is due.

Bodies never pass through here. Whoever owns the socket moves them between it and their place in memory or a file, and
tells how many bytes moved. So bodies are not copied, and a status and the bytes behind it share one system call.

The client's states; version 2 begins on the left, version 1 on the right, and ``NEXT`` is the same as a table::

    STATUS ──accepted──> BODY <──part── FIRST_BYTE
                          │                  │
                          └──last──> DONE <──┘ last

    rejected, in place of accepted: REFUSED
    closed, in BODY: CUT; before: UNANSWERED

Two rules: nothing follows a final state until ``expect`` begins the next reply, and what the table does not list cannot
happen, whatever the peer sends: a word that is no status raises ``RemoteProtocolError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from engine.protocol.key import KEY_BYTES, shows_key
from engine.protocol.wire import (
    HEADER_LENGTH,
    LATEST_VERSION,
    STATUS_LENGTH,
    Opcode,
    Request,
    Status,
    pack_request,
    pack_status,
    unpack_request,
    unpack_status,
)

STATUS_OK: Final = pack_status(Status.OK)
STATUS_REJECTED: Final = pack_status(Status.ADDRESS_REJECTED)


class ReplyState(IntEnum):
    """Where a client stands with one reply. The first three wait for bytes; the others are final."""

    STATUS = 0
    """The status has not come, or not all of it."""
    FIRST_BYTE = 1
    """Nothing has come; version 1 sends the body at once, or closes."""
    BODY = 2
    """The request is granted, and ``ReplyReader.left`` bytes are still to come."""
    DONE = 3
    """All of it has come."""
    REFUSED = 4
    """The status was ``ReplyReader.code``, which is not OK. The server closes."""
    UNANSWERED = 5
    """The server closed instead of an answer. Version 1 refuses so; one that dies looks the same."""
    CUT = 6
    """The server closed in the middle of the body, ``ReplyReader.left`` bytes before its end."""


class Event(IntEnum):
    """What bytes, or their end, mean to a reply."""

    PART = 0
    """Some bytes, and more must follow."""
    LAST = 1
    """The last byte of the body; an empty one ends with its status."""
    ACCEPTED = 2
    """A whole status: OK."""
    REJECTED = 3
    """A whole status with another code."""
    CLOSED = 4
    """The peer closed, or shut down its side."""


NEXT: Final[Mapping[ReplyState, Mapping[Event, ReplyState]]] = {
    ReplyState.STATUS: {
        Event.PART: ReplyState.STATUS,
        Event.ACCEPTED: ReplyState.BODY,
        Event.REJECTED: ReplyState.REFUSED,
        Event.CLOSED: ReplyState.UNANSWERED,
    },
    ReplyState.FIRST_BYTE: {
        Event.PART: ReplyState.BODY,
        Event.LAST: ReplyState.DONE,
        Event.CLOSED: ReplyState.UNANSWERED,
    },
    ReplyState.BODY: {
        Event.PART: ReplyState.BODY,
        Event.LAST: ReplyState.DONE,
        Event.CLOSED: ReplyState.CUT,
    },
}
"""The states that wait, and where each event leads. A state without a row is final."""


class ReplyReader:
    """Reads the replies of one connection, one after the other; ``expect`` begins each.

    A loop around it owns the socket::

        reply.expect(length)
        while reply.waits:
            body = reply.received(receive_into(reply.into(room)))

    ``state`` tells how it ended, ``code`` what the last status said, ``left`` how much of the body has not come.
    """

    __slots__ = ("_begin", "_missing", "_peer", "_status", "code", "left", "state", "waits")

    def __init__(self, version: int, *, peer: str) -> None:
        """``version`` is the one in which requests are sent; ``peer`` is named in errors."""
        self._begin = ReplyState.STATUS if version >= LATEST_VERSION else ReplyState.FIRST_BYTE
        self._peer = peer
        self._status = memoryview(bytearray(STATUS_LENGTH))
        self._missing = self._status
        self.code = 0
        self.left = 0
        self.state = ReplyState.DONE
        self.waits = False

    def expect(self, length: int) -> None:
        """Begin the reply to a READ of ``length`` bytes; 0 for a WRITE of version 2, which a status answers."""
        self.left = length
        self.state = self._begin
        self.waits = True
        if not length and self._begin is _FIRST_BYTE:
            self._become(ReplyState.DONE)  # nothing will come

    def into(self, room: memoryview) -> list[memoryview]:
        """Where to receive next: what is missing of the status, and behind it ``room``, at most ``left`` bytes."""
        return [self._missing, room] if self.state is _STATUS else [room]

    def received(self, count: int) -> int:
        """Account for ``count`` bytes received into what ``into`` gave; 0: the peer closed. How many were body.

        Raises ``RemoteProtocolError`` for a word that is no status.
        """
        if not count:
            self._become(NEXT[self.state][_CLOSED])
            return 0
        if self.state is _STATUS:
            count -= len(self._missing)
            if count < 0:
                self._missing = self._missing[count:]
                return 0
            self._missing = self._status
            if self._status != STATUS_OK:
                self.code = unpack_status(self._status, peer=self._peer)
                self._become(NEXT[_STATUS][_REJECTED])
                return 0
            self.state = _GRANTED
            if self.left and not count:
                return 0
        left = self.left = self.left - count
        if left:
            self.state = NEXT[self.state][_PART]
        else:
            self._become(NEXT[self.state][_LAST])
        return count

    @property
    def closed_how(self) -> str:
        """In words for an error, after UNANSWERED or CUT: what the peer's close left undone."""
        if self.state is ReplyState.UNANSWERED:
            return "it closed the connection instead of an answer"
        return f"it closed the connection {self.left} bytes before the end"

    def _become(self, state: ReplyState) -> None:
        self.state = state
        self.waits = state in NEXT


def acknowledged(data: memoryview) -> int:
    """How many WRITEs of version 2 the statuses that ``data`` begins with say were applied, one after the other."""
    count = len(data) // STATUS_LENGTH
    if data == STATUS_OK * count:
        return count
    each = range(0, count * STATUS_LENGTH, STATUS_LENGTH)
    return next((n for n, at in enumerate(each) if data[at : at + STATUS_LENGTH] != STATUS_OK), count)


def acknowledging(address: int, length: int, version: int) -> tuple[bytes, int]:
    """What a client sends behind a WRITE's body to hear that it was applied, and how long the reply's body is then.

    Version 2 acknowledges by itself, with a status. Version 1 does not: the WRITE is followed by a READ of its last
    byte, which comes only after the WRITE was applied, since one connection is answered strictly in order, and never
    where it was refused.
    """
    if version >= LATEST_VERSION:
        return b"", 0
    return pack_request(address + length - 1, 1, version=version), 1


def refusal(request: Request) -> bytes:
    """What a server sends to refuse a request, before it closes: version 1 has no words for it."""
    return STATUS_REJECTED if request.version >= LATEST_VERSION else b""


class Step(IntEnum):
    """What a server does next for a request."""

    SEND_STATUS = 0
    SEND_BODY = 1
    TAKE_BODY = 2
    OVER = 3


STEPS: Final[Mapping[tuple[Opcode, int], tuple[Step, Step]]] = {
    (Opcode.READ, 1): (Step.SEND_BODY, Step.OVER),
    (Opcode.READ, 2): (Step.SEND_STATUS, Step.SEND_BODY),
    (Opcode.WRITE, 1): (Step.TAKE_BODY, Step.OVER),
    (Opcode.WRITE, 2): (Step.TAKE_BODY, Step.SEND_STATUS),
}
"""What a granted request of each form and version takes first, and then; it is over after that."""


class ReplyWriter:
    """What is left to do for one granted request: ``step`` says what is next, ``moved`` that some of it is done."""

    __slots__ = ("_then", "left", "status", "step")

    def __init__(self, request: Request) -> None:
        """The mirror of ``ReplyReader.expect``. A body of no bytes is passed over."""
        self.left = request.length
        """Bytes of the body that have not moved."""
        self.status = STATUS_OK
        """What is still to be sent of the status, where there is one."""
        self.step, self._then = STEPS[request.opcode, request.version]
        if not self.left and self.step is not _SEND_STATUS:
            self.step, self._then = self._then, _OVER

    @property
    def behind(self) -> int:
        """Bytes of the body that may follow the status in the same call."""
        return self.left if self._then is _SEND_BODY else 0

    def moved(self, count: int) -> int:
        """Account for ``count`` bytes of this step, and of the body behind a status. How many were body."""
        if self.step is _SEND_STATUS:
            missing = len(self.status)
            if count < missing:
                self.status = self.status[count:]
                return 0
            count -= missing
            self.step, self._then = self._then, _OVER
        left = self.left = self.left - count
        if not left and self.step is not _OVER:
            self.step, self._then = self._then, _OVER
        return count


class RequestReader:
    """The bytes of one client's connection: requests, and what was read along of a WRITE's body."""

    __slots__ = ("_data", "_peer", "_start")

    def __init__(self, *, peer: str) -> None:
        """``peer`` is named in errors."""
        self._peer = peer
        self._data = b""
        self._start = 0

    def feed(self, data: bytes) -> None:
        """More bytes came."""
        self._data = self._data[self._start :] + data
        self._start = 0

    def next(self) -> Request | None:
        """The next request; None until all of its header has come. The body of the last one must have been taken.

        Raises ``RemoteProtocolError`` for an unknown opcode.
        """
        if len(self._data) - self._start < HEADER_LENGTH:
            return None
        request = unpack_request(self._data, peer=self._peer, offset=self._start)
        self._start += HEADER_LENGTH
        return request

    def key(self) -> bytes | None:
        """The key that the next request shows, which is then passed over; None until all of it has come.

        Nothing for any other request, which stays. Raises as ``next``.
        """
        left = len(self._data) - self._start
        if left < HEADER_LENGTH:
            return None
        if not shows_key(unpack_request(self._data, peer=self._peer, offset=self._start)):
            return b""
        if left < HEADER_LENGTH + KEY_BYTES:
            return None
        self._start += HEADER_LENGTH
        return self.take(KEY_BYTES)

    def take(self, most: int) -> bytes:
        """Up to ``most`` bytes of a WRITE's body, of those that have come."""
        taken = self._data[self._start : self._start + most]
        self._start += len(taken)
        return taken

    def forget(self) -> None:
        """Drop what has come: the connection is refused."""
        self._data = b""
        self._start = 0


# Members of an enumeration are slow to look up before Python 3.12.
_STATUS: Final = ReplyState.STATUS
_FIRST_BYTE: Final = ReplyState.FIRST_BYTE
_GRANTED: Final = NEXT[ReplyState.STATUS][Event.ACCEPTED]
_PART: Final = Event.PART
_LAST: Final = Event.LAST
_REJECTED: Final = Event.REJECTED
_CLOSED: Final = Event.CLOSED
_SEND_STATUS: Final = Step.SEND_STATUS
_SEND_BODY: Final = Step.SEND_BODY
_OVER: Final = Step.OVER
