"""The data server: Mooncake's TCP data plane, versions 1 and 2, out of an address space.

One thread waits in ``epoll`` for new connections and for idle ones that become ready; a ready one is handed to a
worker of a bounded pool, which answers its requests strictly in order until it has been idle for ``LINGER`` and then
parks it again. So idle connections cost a descriptor each and no thread, and busy ones no hand-over a request. Where a
connection may stand, and what leads from there to where, is told in ``engine.serving.connections``.

A peer that stops taking (or sending) its bytes is parked too, in the middle of its request: it holds a connection and
a lease on one buffer, and no worker. So no number of slow peers keeps the others waiting.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import socket
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from engine import forks
from engine.errors import AddressError, MooncakeError, RemoteProtocolError, UsageError
from engine.net import addresses, sockets
from engine.net.last_use import LastUse
from engine.net.rate import RateLimit
from engine.net.threads import Failure, Threads
from engine.protocol import wire
from engine.protocol.exchange import RequestReader, refusal
from engine.protocol.key import same_key
from engine.serving.answer import Answer
from engine.serving.connections import Change, Connections, Life, Stage
from engine.serving.upload_slots import LARGE_BYTES, UploadQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.memory.address_space import AddressSpace

MAX_WORKERS = 32
"""Connections that are served at the same time; others that are ready wait their turn."""

MAX_CONNECTIONS = 4096
"""Open connections. One more makes the connection that has been idle longest go."""

MAX_STRANGERS = 256
"""Open connections that have not shown the key, where there is one. One more makes the oldest of them go."""

LINGER = 0.02
"""Seconds that a worker waits for the next request before it parks a connection."""

FAIR_SHARE = 0.25
"""Seconds after which a worker leaves a busy connection, in the middle of a request too, if others wait."""

GRACE = 0.05
"""Seconds that a worker waits for a peer that takes nothing, before it parks the connection in mid-request."""

SLOT_TIMEOUT = 2.0
"""Seconds without progress after which a send gives its upload slot to another; it goes on without one."""

STALL_TIMEOUT = 30.0
"""Seconds without progress after which a peer that does not take (or send) its bytes is dropped."""

DRAIN_TIMEOUT = 5.0
"""Seconds for a refused peer to close; closing first would reset the connection and may destroy the status."""

SWEEP_SECONDS = 1.0
"""How often peers that are refused or slow are looked after."""

CLOSE_TIMEOUT = 2.0
"""Seconds in which ``close`` ends."""

_READ_AHEAD = wire.HEADER_LENGTH * 170
_DRAIN_BYTES = 1 << 18
_ACCEPT_PAUSE = 0.1
_WAITING = select.EPOLLIN | select.EPOLLONESHOT
_WAITING_TO_SEND = select.EPOLLOUT | select.EPOLLONESHOT
_REFUSED = Stage.REFUSED
_SERVED = Stage.SERVED

log = logging.getLogger(__name__)


class _Connection(Life):
    """A socket and what came from it, for whoever has it at its stage."""

    __slots__ = ("answer", "host", "peer", "requests", "slot", "sock")

    def __init__(self, sock: socket.socket, host: str, port: int, *, known: bool) -> None:
        super().__init__(sock.fileno(), known=known)
        self.sock = sock
        self.peer = addresses.join(host, port)
        self.requests = RequestReader(peer=self.peer)
        self.host = host
        self.answer: Answer | None = None
        self.slot = False


class TcpServer:
    """Serves ``space`` on ``host:port`` (0: any free port) from construction to ``close``."""

    def __init__(
        self,
        space: AddressSpace,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ports: range | None = None,
        workers: int = MAX_WORKERS,
        max_connections: int = MAX_CONNECTIONS,
        upload_limit: RateLimit | None = None,
        key: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Port 0 is one of ``ports`` where they are given; ``clock`` tells seconds, and never goes back.

        With a ``key``, a connection is served once it has shown that (``engine.protocol.key``).

        Raises ``UsageError`` when the address cannot be had, or no thread.
        """
        self._space = space
        self._key = key
        self._listener = sockets.listen(host, port, among=ports)
        self.port: int = self._listener.getsockname()[1]
        self._max_workers = workers
        self._max_connections = max_connections
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: Connections[_Connection] = Connections()
        self._ready: SimpleQueue[_Connection | None] = SimpleQueue()
        self._limit = upload_limit or RateLimit()
        self._uploads: UploadQueue[_Connection] = UploadQueue()
        self._waits_until = math.inf
        self._load = 0
        self._sent = 0
        self._received = 0
        self._closing = False
        self._sweep_at = math.inf
        self._threads = Threads()
        self._workers = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._use = LastUse(self._give_back)
        try:
            # One worker from the start: where no other can be started later, it serves them all.
            self._threads.must_serve("data worker", self._work)
            self._workers = 1
            self._threads.must_serve("data watch", self._watch, self._use)
        except UsageError:
            self.close()
            raise

    @property
    def bytes_sent(self) -> int:
        """Bytes of buffers sent so far, counted when a request is done; headers and statuses do not count."""
        return self._sent

    def waiting(self, host: str) -> int:
        """Requests of a host that wait until others have been served."""
        with self._lock:
            return self._uploads.waiting(host)

    @property
    def bytes_received(self) -> int:
        """Bytes written into buffers so far."""
        return self._received

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the server's threads."""
        return self._threads.failures

    def close(self) -> None:
        """Stop accepting, drop all connections, end all threads, within ``CLOSE_TIMEOUT``. Twice is harmless."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        self._threads.stop()
        os.eventfd_write(self._wake, 1)
        for _ in range(self._max_workers):
            self._ready.put(None)
        self._threads.join(CLOSE_TIMEOUT)
        self._use.let_go()

    def _give_back(self) -> None:
        """Close what the watching thread used; that may end later than ``close`` waits."""
        self._listener.close()
        self._epoll.close()
        os.close(self._wake)
        with self._lock:
            left = list(self._connections)
        for connection in left:
            self._drop(connection)

    # The watching thread

    def _watch(self) -> bool:
        """Wait for what happens, and see to it; an error of one connection keeps no other from being served."""
        failed: Exception | None = None
        for fd, _ in self._epoll.poll(self._pause(self._sweep_at)):
            try:
                self._happened(fd)
            except Exception as error:  # noqa: BLE001 - it is raised below
                failed = error
        self._sweep_at = self._clock() + SWEEP_SECONDS if self._sweep() else math.inf
        if failed is not None:
            raise failed
        return True

    def _happened(self, fd: int) -> None:
        if fd == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        elif fd == self._listener.fileno():
            self._accept()
        else:
            with self._lock:
                connection = self._connections.ready(fd)
            if connection is not None:
                self._dispatch(connection)

    def _pause(self, until: float) -> float:
        """Seconds that the watching thread may wait, no longer than ``until``; -1 is for ever."""
        with self._lock:
            self._waits_until = min(until, self._uploads.due)
            return max(0.0, self._waits_until - self._clock()) if self._waits_until < math.inf else -1

    def _hurry(self) -> None:
        """Wake the watching thread, if a send will be slow before that would look. The lock is held."""
        if self._uploads.due < self._waits_until and not self._closing:
            os.eventfd_write(self._wake, 1)

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, address = self._listener.accept()
                forks.hold(sock)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM) and not self._evict():
                    log.warning("cannot accept connections: %s", error.strerror)
                    time.sleep(_ACCEPT_PAUSE)
                return
            if self._connections.strangers >= MAX_STRANGERS:
                self._evict(stranger=True)
            if len(self._connections) >= self._max_connections and not self._evict():
                sock.close()
                continue
            try:
                sockets.tune(sock)
                sockets.set_timeouts(sock, receive=LINGER, send=GRACE)
            except OSError:  # gone already
                sock.close()
                continue
            connection = _Connection(sock, address[0], address[1], known=not self._key)
            try:
                with self._lock:
                    self._connections.add(connection)
                    self._epoll.register(connection.fd, _WAITING)
            except OSError as error:  # no room for another watched descriptor
                log.warning("cannot watch connections: %s", error.strerror)
                self._drop(connection)

    def _evict(self, *, stranger: bool = False) -> bool:
        """Drop the connection that has been parked longest."""
        with self._lock:
            connection = self._connections.evict(stranger=stranger)
        if connection is None:
            return False
        self._drop(connection)
        return True

    def _sweep(self) -> bool:
        """Drop refused peers that did not close in time, and stalled ones; whether others are left to watch."""
        now = self._clock()
        with self._lock:
            late = self._connections.overdue(now)
            begun: list[_Connection] = []
            for each in self._connections.timed:
                if each.slot and each.deadline - STALL_TIMEOUT + SLOT_TIMEOUT < now:
                    begun += self._without_slot(each)
            begun += self._begun(self._uploads.tick(now))
            others = bool(self._connections.timed)
        for connection in begun:
            self._dispatch(connection)
        for connection in late:
            if connection.answer is not None:
                log.info("%s stalled for %g s", connection.peer, STALL_TIMEOUT)
            self._drop(connection)
        return others

    def _begun(self, connections: list[_Connection]) -> list[_Connection]:
        """Those that got an upload slot, to be dispatched once the lock is released; it is held."""
        for connection in connections:
            self._connections.change(connection, Change.ADMIT)
        return connections

    def _dispatch(self, connection: _Connection) -> None:
        """Leave a connection to the workers, and start one more where all are busy and one can be had."""
        with self._lock:
            self._load += 1
            if self._load > self._workers < self._max_workers and self._threads.serve("data worker", self._work):
                self._workers += 1
        self._ready.put(connection)

    # The workers

    def _work(self) -> bool:
        connection = self._ready.get()
        if connection is None:
            return False
        again = False
        try:
            again = self._drain(connection) if connection.stage is _REFUSED else self._serve(connection)
        except RemoteProtocolError as error:
            log.info("%s", error)
        except (MooncakeError, OSError) as error:
            log.info("connection of %s ends: %s", connection.peer, error)
        except Exception as error:  # noqa: BLE001 - it is noted; no pause, since the connection goes
            self._threads.note(f"connection of {connection.host}", error)
        finally:
            with self._lock:
                self._load -= 1
            if not again:
                self._drop(connection)
        return True

    def _serve(self, connection: _Connection) -> bool:
        """Answer requests until the connection is idle; false when it is to be closed."""
        sock = connection.sock
        leave_at = self._clock() + FAIR_SHARE
        if not self._move(connection, leave_at):
            return self._park(connection)
        while not self._closing:
            known = connection.known or self._meet(connection)
            request = connection.requests.next() if known is not None else None
            if request is None:
                try:
                    data = sock.recv(_READ_AHEAD, 0 if self._ready.empty() else socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return self._park(connection)
                if not data:
                    return False
                connection.requests.feed(data)
                continue
            if not known or not self._begin(connection, request):
                return self._refuse(connection, request)
            if not self._admit(connection, request):
                return True  # the queue has it, and hands it to a worker when its turn comes
            if not self._move(connection, leave_at):
                return self._park(connection)
            if not self._ready.empty() and self._clock() > leave_at:
                self._dispatch(connection)
                return True
        return False

    def _meet(self, connection: _Connection) -> bool | None:
        """Whether a stranger shows the key; None while it has said too little."""
        shown = connection.requests.key()
        if shown is None:
            return None
        if not same_key(shown, self._key):
            return False
        with self._lock:
            self._connections.know(connection)
        return True

    def _begin(self, connection: _Connection, request: wire.Request) -> bool:
        try:
            lease = self._space.resolve(request.address, request.length)
        except AddressError:
            return False
        if request.opcode is wire.Opcode.WRITE and not lease.buffer.writable:
            lease.release()
            return False
        connection.answer = Answer(
            request,
            lease,
            peer=connection.peer,
            limit=self._limit,
            closing=self._is_closing,
        )
        return True

    def _is_closing(self) -> bool:
        return self._closing

    def _admit(self, connection: _Connection, request: wire.Request) -> bool:
        """Take an upload slot for a large read; false when it waits for one."""
        if request.opcode is not wire.Opcode.READ or request.length < LARGE_BYTES:
            return True
        with self._lock:
            connection.slot = True  # one that waits is given the slot of whoever names it
            self._connections.change(connection, Change.WAIT)
            begun = self._begun(self._uploads.ask(connection.host, connection, self._clock()))
            self._hurry()
        for other in begun:
            if other is not connection:
                self._dispatch(other)
        return connection in begun

    def _leave_slot(self, connection: _Connection) -> None:
        """Give an upload slot back, or the wish for one, and hand it on."""
        with self._lock:
            begun = self._without_slot(connection)
        for other in begun:
            self._dispatch(other)

    def _without_slot(self, connection: _Connection) -> list[_Connection]:
        """Take its slot, or the wish for one; those to be dispatched in its place. The lock is held."""
        if not connection.slot:
            return []
        connection.slot = False
        if self._uploads.give_up(connection.host, connection):
            return []
        begun = self._begun(self._uploads.done(connection, self._clock()))
        self._hurry()
        return begun

    def _move(self, connection: _Connection, leave_at: float) -> bool:
        """Go on with the request under way; false when the peer, or others who wait, make it pause."""
        answer = connection.answer
        if answer is None:
            return True
        sock = connection.sock
        # Once a peer was slow it is not waited for until the request is done: a trickle must not hold a worker.
        slow = sock.gettimeout() == 0
        try:
            while answer.go_on(sock, connection.requests.take):
                crowded = not self._ready.empty() and self._clock() > leave_at
                if slow or crowded:
                    connection.deadline = self._clock() + STALL_TIMEOUT
                if crowded:
                    return False
        except BlockingIOError:
            if not slow:
                connection.deadline = self._clock() + STALL_TIMEOUT
                sock.setblocking(False)
            return False
        connection.answer = None
        answer.close()
        self._leave_slot(connection)
        if slow:
            sock.setblocking(True)
        with self._lock:
            if connection.stage is not _SERVED:  # else nothing changes; small requests feel the call
                self._connections.change(connection, Change.ANSWER)
            if answer.request.opcode is wire.Opcode.READ:
                self._sent += answer.request.length
            else:
                self._received += answer.request.length
        return True

    def _refuse(self, connection: _Connection, request: wire.Request) -> bool:
        log.info("%s: refused %d bytes at %#x", connection.peer, request.length, request.address)
        says_no = refusal(request)
        if not says_no:
            return False
        connection.sock.sendall(says_no)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.requests.forget()
        connection.deadline = self._clock() + DRAIN_TIMEOUT
        with self._lock:
            first = self._connections.change(connection, Change.REFUSE)
        if first:
            self._begin_sweeping()
        return self._drain(connection)

    def _drain(self, connection: _Connection) -> bool:
        """Throw away what a refused peer still sends, a little at a time."""
        if connection.deadline < self._clock():
            return False
        try:
            for _ in range(16):
                if not connection.sock.recv(_DRAIN_BYTES, socket.MSG_DONTWAIT):
                    return False
        except BlockingIOError:
            pass
        return self._park(connection)

    def _park(self, connection: _Connection) -> bool:
        with self._lock:
            if self._closing:
                return False
            answer = connection.answer
            first = self._connections.change(connection, Change.PARK if answer is None else Change.PAUSE)
            sends = answer is not None and answer.sends
            self._epoll.modify(connection.fd, _WAITING_TO_SEND if sends else _WAITING)
        if first:
            self._begin_sweeping()
        return True

    def _begin_sweeping(self) -> None:
        """Wake the watching thread, which waits for ever while no connection has a deadline."""
        os.eventfd_write(self._wake, 1)

    def _drop(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.change(connection, Change.CLOSE)
            connection.sock.close()
        self._leave_slot(connection)
        answer, connection.answer = connection.answer, None
        if answer is not None:
            answer.close()
