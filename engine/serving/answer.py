"""The answer to one request of the data plane, in steps: each is one system call, and may be the last for now."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from engine.errors import RemoteProtocolError
from engine.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.memory.address_space import Lease
    from engine.net.rate import RateLimit

BOUNCE = 1 << 18
"""Bytes of the buffer through which a write reaches a file."""

STATUS_OK = wire.pack_status(wire.Status.OK)


class Answer:
    """What is left to do for a request: ``head`` is sent first, then bytes move, then ``tail`` is sent.

    It holds a lease on the buffer until it is closed. ``give_up_at`` is its owner's.
    """

    __slots__ = ("_closing", "_done", "_head", "_lease", "_limit", "_peer", "_tail", "_view", "give_up_at", "request")

    def __init__(
        self,
        request: wire.Request,
        lease: Lease,
        *,
        peer: str,
        give_up_at: float,
        limit: RateLimit,
        closing: Callable[[], bool],
    ) -> None:
        """``peer`` is named in errors; the answer owns ``lease``, and keeps to ``limit`` when it sends.

        ``closing`` says whether nothing more will be sent, so that nobody waits for the limit's sake.
        """
        self.request = request
        self.give_up_at = give_up_at
        self._lease = lease
        self._peer = peer
        self._limit = limit
        self._closing = closing
        self._done = 0
        status = STATUS_OK if request.version >= wire.LATEST_VERSION else b""
        reads = request.opcode is wire.Opcode.READ
        self._head = status if reads else b""
        self._tail = b"" if reads else status
        self._view = None if reads else lease.buffer.view(lease.offset, request.length)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return not self._head and self._done == self.request.length and not self._tail

    @property
    def sends(self) -> bool:
        """Whether it waits for the peer to take bytes, rather than to send them."""
        return self.request.opcode is wire.Opcode.READ or self._done == self.request.length

    def step(self, sock: socket.socket, ahead: Callable[[int], bytes]) -> None:
        """Go on a little; ``ahead(n)`` gives up to n bytes that were read from the socket already.

        Raises ``OSError`` (``BlockingIOError`` where the peer is not ready), ``RemoteProtocolError``, and what the
        buffer raises.
        """
        left = self.request.length - self._done
        if self._head:
            self._begin(sock, left)
        elif self.request.opcode is wire.Opcode.READ:
            sent = self._lease.buffer.send(sock, self._lease.offset + self._done, self._limit.piece(left))
            self._done += sent
            self._limit.spend(sent, self._closing)
        elif left:
            self._receive(sock, ahead(left), left)
        else:
            self._tail = self._tail[sock.send(self._tail) :]

    def close(self) -> None:
        """Give the memory back."""
        if self._view is not None:
            self._view.release()
        self._lease.release()

    def _begin(self, sock: socket.socket, left: int) -> None:
        """Send the head, and bytes of memory behind it in the same call."""
        view = self._lease.buffer.view(self._lease.offset, self._limit.piece(left))
        if view is None:
            self._head = self._head[sock.send(self._head, socket.MSG_MORE) :]
            return
        with view:
            sent = sock.sendmsg((self._head, view))
        self._done = max(0, sent - len(self._head))
        self._head = self._head[sent:]
        self._limit.spend(self._done, self._closing)

    def _receive(self, sock: socket.socket, ahead: bytes, left: int) -> None:
        if ahead:
            count = self._store(memoryview(ahead))
        elif self._view is not None:
            count = sock.recv_into(self._view[self._done :])
        else:
            bounce = memoryview(bytearray(min(left, BOUNCE)))
            count = self._store(bounce[: sock.recv_into(bounce)])
        if not count:
            raise RemoteProtocolError(peer=self._peer, detail="it closed in the middle of a write")
        self._done += count

    def _store(self, data: memoryview) -> int:
        if self._view is not None:
            self._view[self._done : self._done + len(data)] = data
        elif data:
            self._lease.buffer.write_from(self._lease.offset + self._done, data)
        return len(data)
