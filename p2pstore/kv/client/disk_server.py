"""Values on this client's disk, for others: each call brings some into memory, where the caller reads them.

It listens where the client's other servers do, and like them knows no password.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine import forks
from engine.errors import MooncakeError, RemoteProtocolError
from engine.net import addresses, sockets
from engine.net.threads import Failure, Threads
from engine.rpc import disk_calls
from engine.rpc.codes import Code
from engine.rpc.disk_calls import Done, Ready, Wanted
from engine.rpc.framing import Splitter

if TYPE_CHECKING:
    from engine.memory.registered import RegisteredMemory
    from p2pstore.kv.client.plane import DataPlane

LEASE_SECONDS = 30.0
"""For which values that were asked for lie in memory, if the caller does not say sooner that it has them."""

MAX_READY = 1 << 30
"""Bytes that lie ready at a time; one call alone may ask for more."""

MAX_CALLERS = 64
"""Connections at a time, each with a thread; more are closed at once."""

IDLE_SECONDS = 60.0
"""For a caller to send its next call, and to take an answer."""

LOOK_SECONDS = 1.0
"""Between two looks for what lay ready for too long."""

END_SECONDS = 5.0

RECEIVE_BYTES = 1 << 16

MAX_CALL = 16 << 20
"""Bytes of a call: the names of some hundred thousand values."""

log = logging.getLogger(__name__)

ReadInto = Callable[[str, memoryview], bool]


class DiskServer:
    """Answers from its making to ``close``."""

    def __init__(
        self,
        host: str,
        plane: DataPlane,
        read_into: ReadInto,
        size: Callable[[str], int | None],
        *,
        ports: range | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``read_into`` and ``size`` know the values by what they are called on the disk.

        Raises ``UsageError`` where the address cannot be had.
        """
        self._plane = plane
        self._read_into = read_into
        self._size = size
        self._clock = clock
        self._guard = threading.Lock()
        self._ready: dict[int, tuple[float, RegisteredMemory]] = {}
        self._bytes = 0
        self._numbers = itertools.count(1)
        self._callers: set[socket.socket] = set()
        self._ending = threading.Event()
        self._threads = Threads()
        self._listener = forks.hold(sockets.listen(host, 0, among=ports))
        self._listener.settimeout(LOOK_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        try:
            self._threads.must_serve("store disk server", self._accept)
        except BaseException:
            self._listener.close()
            raise

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in threads."""
        return self._threads.failures

    @property
    def lying_ready(self) -> int:
        """Bytes that lie ready now."""
        return self._bytes

    def close(self) -> None:
        """Answer no more. Twice is harmless."""
        self._ending.set()
        self._threads.stop()
        for sock in list(self._callers):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads.join(END_SECONDS)
        self._listener.close()
        self._let_go_of_late(float("inf"))

    def _accept(self) -> bool:
        if self._ending.is_set():
            return False
        self._let_go_of_late(self._clock())
        try:
            sock, address = self._listener.accept()
        except TimeoutError:
            return True
        except OSError:
            if self._ending.is_set():
                return False
            raise
        forks.hold(sock)
        if len(self._callers) >= MAX_CALLERS:
            log.warning("more than %d clients want values on this client's disk: one is turned away", MAX_CALLERS)
            sock.close()
            return True
        self._callers.add(sock)
        peer = addresses.join(address[0], address[1])
        if self._threads.start("store disk caller", self._serve, sock, peer) is None:
            self._callers.discard(sock)
            sock.close()
        return True

    def _serve(self, sock: socket.socket, peer: str) -> None:
        splitter = Splitter(peer=peer, limit=MAX_CALL)
        try:
            sock.settimeout(IDLE_SECONDS)
            sockets.tune(sock)
            while not self._ending.is_set():
                data = sock.recv(RECEIVE_BYTES)
                if not data:
                    return
                for request in splitter.requests(data):
                    call = disk_calls.asked(request, peer)
                    if call is None:
                        sock.sendall(disk_calls.refuse(request.sequence))
                    else:
                        result = self._bring(call) if isinstance(call, Wanted) else self._let_go(call)
                        sock.sendall(disk_calls.tell(request.sequence, result))
        except (OSError, RemoteProtocolError) as error:
            if not self._ending.is_set():
                log.info("the connection of %s to this client's disk ends: %s", peer, error)
        finally:
            self._callers.discard(sock)
            sock.close()

    def _bring(self, wanted: Wanted) -> Ready | Code:
        """Have values lie ready: all of them, or none."""
        if len(wanted.names) != len(wanted.sizes) or not wanted.names or min(wanted.sizes) < 1:
            return Code.BAD_PARAMS
        if [self._size(name) for name in wanted.names] != wanted.sizes:
            return Code.NOT_FOUND
        total = sum(wanted.sizes)
        with self._guard:
            if self._bytes and self._bytes + total > MAX_READY:
                return Code.BUFFER_OVERFLOW
            self._bytes += total
        try:
            memory, view = self._plane.lend(total)
        except MooncakeError as error:
            log.warning("%d bytes on this client's disk cannot be brought into memory: %s", total, error)
            with self._guard:
                self._bytes -= total
            return Code.BUFFER_OVERFLOW
        places: list[int] = []
        try:
            at = 0
            for name, size in zip(wanted.names, wanted.sizes, strict=True):
                if not self._read_into(name, view[at : at + size]):
                    break
                places.append(memory.address + at)
                at += size
        finally:
            if len(places) < len(wanted.names):
                self._forget(memory)
        if len(places) < len(wanted.names):
            return Code.NOT_FOUND
        number = next(self._numbers)
        with self._guard:
            self._ready[number] = self._clock() + LEASE_SECONDS, memory
        return Ready(number, places, self._plane.endpoint, int(LEASE_SECONDS * 1000))

    def _let_go(self, done: Done) -> bool:
        with self._guard:
            found = self._ready.pop(done.batch, None)
        if found is None:
            return False
        self._forget(found[1])
        return True

    def _let_go_of_late(self, now: float) -> None:
        with self._guard:
            late = [number for number, (until, _) in self._ready.items() if until <= now]
        for number in late:
            self._let_go(Done(number))

    def _forget(self, memory: RegisteredMemory) -> None:
        with self._guard:
            self._bytes -= memory.length
        self._plane.withdraw(memory, timeout=0.0)
