"""What channels over a socket have in common: requests in order, translated errors, and closing from any thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from engine.errors import PeerStalled, PeerUnreachable, RemoteError, UsageError
from engine.forks import Origin
from engine.transports.base import Channel, Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.memory.region import Region


class SocketChannel(Channel):
    """One blocking socket with kernel timeouts, owned by one thread. Only ``close`` may come from another."""

    max_in_flight: ClassVar[int]
    """Requests submitted and not received; more are misuse."""

    def __init__(self, sock: socket.socket, peer: str, *, stall_timeout: float) -> None:
        """Takes over a connected socket; ``peer`` and ``stall_timeout`` (seconds) are named in errors."""
        self._origin = Origin("this channel")
        self._sock = sock
        self._peer = peer
        self._stall_timeout = stall_timeout
        self._submitted: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False

    def submit(self, address: int, length: int, place: Region | None = None) -> None:
        """See ``Channel.submit``. Raises ``UsageError`` for no bytes, and beyond ``max_in_flight`` requests."""
        self._origin.check()
        if place is not None:
            place.close()  # a socket's bytes come when they are received
        if length < 1 or len(self._submitted) >= self.max_in_flight:
            raise UsageError(detail=f"request {len(self._submitted) + 1} of {length} bytes on one channel")
        with self._in_use():
            try:
                self._sock.sendall(self._request(address, length))
            except OSError as error:
                raise self._failed(error) from None
        self._submitted.append((address, length))

    def receive(self, sink: Sink) -> None:
        """See ``Channel.receive``."""
        self._origin.check()
        if not self._submitted:
            raise UsageError(detail="nothing was submitted on this channel")
        address, length = self._submitted.popleft()
        with self._in_use():
            self._receive(sink, address, length)

    def close(self) -> None:
        """See ``Channel.close``."""
        if self._origin.elsewhere:
            return
        with self._lock:
            self._closed = True
            if self._busy:  # its user closes it; shutting it down wakes that thread
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
            else:
                self._sock.close()

    @abstractmethod
    def _request(self, address: int, length: int) -> bytes:
        """The bytes that ask for a range."""

    @abstractmethod
    def _receive(self, sink: Sink, address: int, length: int) -> None:
        """Bring the oldest range into ``sink``."""

    def _failed(self, error: OSError) -> RemoteError:
        """What an error of the socket means."""
        if isinstance(error, BlockingIOError):
            return PeerStalled(peer=self._peer, seconds=self._stall_timeout)
        return self._gone(error.strerror or str(error))

    def _gone(self, detail: str) -> PeerUnreachable:
        return PeerUnreachable(peer=self._peer, detail="the channel was closed" if self._closed else detail)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the descriptor open meanwhile, whoever calls ``close``; close it after an error."""
        with self._lock:
            if self._closed:
                raise self._gone("")
            self._busy = True
        failed = True
        try:
            yield
            failed = False
        finally:
            with self._lock:
                self._busy = False
                self._closed |= failed
                if self._closed:
                    self._sock.close()
