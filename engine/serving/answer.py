"""The answer to one request of the data plane, in steps: each is one system call, and may be the last for now.

What comes after what is ``ReplyWriter``'s to say; here bytes move between the socket and the leased buffer. An answer
is a writer, and does not have one: small requests feel every further object.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from engine.errors import RemoteProtocolError
from engine.protocol.exchange import ReplyWriter, Step
from engine.protocol.wire import Opcode

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.memory.address_space import Lease
    from engine.net.rate import RateLimit
    from engine.protocol.wire import Request

BOUNCE = 1 << 18
"""Bytes of the buffer through which a write reaches a file."""


class Answer(ReplyWriter):
    """What is left to do for a request. It holds a lease on the buffer until it is closed."""

    __slots__ = ("_closing", "_lease", "_limit", "_peer", "_view", "request")

    def __init__(
        self,
        request: Request,
        lease: Lease,
        *,
        peer: str,
        limit: RateLimit,
        closing: Callable[[], bool],
    ) -> None:
        """``peer`` is named in errors; the answer owns ``lease``, and keeps to ``limit`` when it sends.

        ``closing`` says whether nothing more will be sent, so that nobody waits for the limit's sake.
        """
        super().__init__(request)
        self.request = request
        self._lease = lease
        self._peer = peer
        self._limit = limit
        self._closing = closing
        self._view = lease.buffer.view(lease.offset, request.length) if request.opcode is _WRITE else None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step is _OVER

    @property
    def sends(self) -> bool:
        """Whether it waits for the peer to take bytes, rather than to send them."""
        return self.step is not _TAKE_BODY

    def go_on(self, sock: socket.socket, ahead: Callable[[int], bytes]) -> bool:
        """Take one step; whether anything is left. ``ahead(n)`` gives up to n bytes that were read from it already.

        Raises ``OSError`` (``BlockingIOError`` where the peer is not ready), ``RemoteProtocolError``, and what the
        buffer raises.
        """
        at = self._lease.offset + self.request.length - self.left
        if self.step is _SEND_STATUS:
            sent = self._send_status(sock, at)
        elif self.step is _SEND_BODY:
            sent = self._lease.buffer.send(sock, at, self._limit.piece(self.left))
        else:
            self.moved(self._take(sock, at, ahead(self.left)))
            return self.step is not _OVER
        self._limit.spend(self.moved(sent), self._closing)
        return self.step is not _OVER

    def close(self) -> None:
        """Give the memory back."""
        if self._view is not None:
            self._view.release()
        self._lease.release()

    def _send_status(self, sock: socket.socket, at: int) -> int:
        """Send the status; where the body follows it, bytes of memory go in the same call."""
        behind = self.behind
        if not behind:
            return sock.send(self.status)
        view = self._lease.buffer.view(at, self._limit.piece(behind))
        if view is None:
            return sock.send(self.status, socket.MSG_MORE)
        with view:
            return sock.sendmsg((self.status, view))

    def _take(self, sock: socket.socket, at: int, ahead: bytes) -> int:
        """Store bytes of the body, those first that were read already."""
        left = self.left
        if ahead:
            count = self._store(at, memoryview(ahead))
        elif self._view is not None:
            count = sock.recv_into(self._view[-left:], 0, socket.MSG_WAITALL)
        else:
            bounce = memoryview(bytearray(min(left, BOUNCE)))
            count = self._store(at, bounce[: sock.recv_into(bounce)])
        if not count:
            raise RemoteProtocolError(peer=self._peer, detail="it closed in the middle of a write")
        return count

    def _store(self, at: int, data: memoryview) -> int:
        if self._view is not None:
            done = at - self._lease.offset
            self._view[done : done + len(data)] = data
        elif data:
            self._lease.buffer.write_from(at, data)
        return len(data)


_OVER = Step.OVER
_SEND_BODY = Step.SEND_BODY
_SEND_STATUS = Step.SEND_STATUS
_TAKE_BODY = Step.TAKE_BODY
_WRITE = Opcode.WRITE
