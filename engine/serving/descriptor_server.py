"""The descriptor server: hands files and shared memory out of the address space to peers on this host, of this user."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine import forks
from engine.errors import AddressError, MooncakeError, UsageError
from engine.net import sockets
from engine.net.threads import Failure, Threads
from engine.protocol.local_socket import (
    MAX_PACKET,
    MEMORY,
    REFUSED,
    DescriptorRequest,
    Grant,
    pack_error,
    peer_uid,
    short_path,
)

if TYPE_CHECKING:
    from engine.memory.address_space import AddressSpace, Lease

MAX_CLIENTS = 128
"""Connections at a time, each with a thread; one more is closed, and its peer falls back to TCP."""

SEND_TIMEOUT = 10.0
"""Seconds for a client to take a descriptor."""

IDLE_TIMEOUT = 300.0
"""Seconds without a question after which a client is dropped."""

PASSABLE = 0o710
"""What the directory of the socket may be to others at most: a group's to pass through. Clients are checked besides."""

CLOSE_TIMEOUT = 2.0
"""Seconds in which ``close`` ends."""

log = logging.getLogger(__name__)


class DescriptorServer:
    """Serves ``space`` on a Unix socket at ``path`` from construction to ``close``.

    The socket's directory is made, or must be, ours alone (mode 0700); besides, each client's user is checked. A
    stale socket of a process that is gone is replaced. Where ``path`` is text it is an abstract name, which has none
    of this but the check.
    """

    def __init__(self, space: AddressSpace, path: Path | str, *, idle_timeout: float = IDLE_TIMEOUT) -> None:
        """A client that asks nothing for ``idle_timeout`` seconds is dropped; 0 is never.

        Raises ``UsageError`` when the socket cannot be had, or no thread.
        """
        self._space = space
        self.path = path
        self._idle_timeout = idle_timeout
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._threads = Threads()
        self._closing = False
        self._granted = 0
        try:
            self._listener = _listen(path)
        except OSError as error:
            shown = path if isinstance(path, Path) else path.replace("\0", "@")
            raise UsageError(detail=f"cannot listen on {shown}: {error.strerror or error}") from None
        self._inode = os.stat(path).st_ino if isinstance(path, Path) else 0
        try:
            self._threads.must_serve("local accept", self._accept)
        except UsageError:
            self.close()
            raise

    @property
    def bytes_granted(self) -> int:
        """Bytes whose descriptors were handed out so far."""
        return self._granted

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the server's threads."""
        return self._threads.failures

    def close(self) -> None:
        """Stop accepting, drop all clients, remove the socket. Twice is harmless."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            for sock in (self._listener, *self._clients):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._threads.stop()
        self._threads.join(CLOSE_TIMEOUT)
        self._listener.close()
        if not isinstance(self.path, Path):
            return
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:  # else a successor's
                self.path.unlink()

    def _accept(self) -> bool:
        try:
            sock, _ = self._listener.accept()
            forks.hold(sock)
        except OSError as error:
            if self._closing:
                return False
            log.warning("cannot accept local peers: %s", error.strerror)
            time.sleep(0.1)
            return True
        with self._lock:
            welcome = len(self._clients) < MAX_CLIENTS and not self._closing
            if welcome:
                self._clients.add(sock)
        thread: threading.Thread | None = None
        try:
            if welcome:
                thread = self._threads.start("local client", self._serve, sock)
        finally:
            if thread is None:
                self._leave(sock)
        return True

    def _serve(self, sock: socket.socket) -> None:
        try:
            uid = peer_uid(sock)
            if uid != os.geteuid():
                log.warning("refused a local peer of user %d", uid)
                return
            sockets.set_timeouts(sock, receive=self._idle_timeout, send=SEND_TIMEOUT)
            while packet := sock.recv(MAX_PACKET + 1):
                self._answer(sock, DescriptorRequest.unpack(packet, peer="on this host"))
        except (MooncakeError, OSError) as error:
            log.info("a local peer's connection ends: %s", error)
        finally:
            self._leave(sock)

    def _leave(self, sock: socket.socket) -> None:
        with self._lock:
            self._clients.discard(sock)
            sock.close()

    def _answer(self, sock: socket.socket, ask: DescriptorRequest) -> None:
        try:
            lease = self._space.resolve(ask.address, ask.length)
        except AddressError:
            sock.sendall(pack_error(REFUSED))
            return
        with lease:
            reason = self._hand_over(sock, lease)
        if reason:
            sock.sendall(pack_error(reason))
        else:
            with self._lock:
                self._granted += ask.length

    @staticmethod
    def _hand_over(sock: socket.socket, lease: Lease) -> str:
        """Send all descriptors of a range; why that was not possible, or nothing."""
        done = 0
        while done < lease.length:
            try:
                run = lease.buffer.file_run(lease.offset + done, lease.length - done)
            except MooncakeError:
                return REFUSED
            if run is None:
                return MEMORY
            try:
                done += run.length
                grant = Grant(run.offset, run.length, done < lease.length)
                socket.send_fds(sock, [grant.pack()], [run.fd])
            finally:
                os.close(run.fd)
        return ""


def _listen(path: Path | str) -> socket.socket:
    if not isinstance(path, Path):
        return _listen_to_name(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.stat()
    if status.st_uid != os.geteuid() or status.st_mode & ~PASSABLE & 0o777:
        raise UsageError(detail=f"{path.parent} must belong to this user, with mode 0700 or 0710")
    listener = forks.hold(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    try:
        with short_path(path) as name:
            try:
                listener.bind(name)
            except OSError:
                if not _stale(name):
                    raise
                os.unlink(name)
                listener.bind(name)
        listener.listen(sockets.BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_to_name(name: str) -> socket.socket:
    listener = forks.hold(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    try:
        listener.bind(name)
        listener.listen(sockets.BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _stale(name: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
