"""Segments of other processes on this host, whose shared memory was handed to us: what lies there is copied, not sent.

A connection to each stays open. Its end is the owner's end, and then the memory is let go: it would stay for as long as
somebody maps it, and nobody would keep what lies in it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time

from engine import forks
from engine.errors import MooncakeError, UsageError
from engine.memory.shared import map_handed_over
from engine.net import sockets
from engine.protocol.local_socket import (
    MAX_PACKET,
    DescriptorRequest,
    Grant,
    peer_uid,
    socket_of,
    unpack_answer,
)

ANSWER_SECONDS = 2.0
"""For a process on this host to hand over a descriptor; one that is slower is reached over TCP."""

ASK_AGAIN_SECONDS = 5.0
"""After which a segment that was no neighbour is tried again."""

MAX_STRANGERS = 4096
"""Segments that are remembered as being none; with one more, all are tried anew."""

log = logging.getLogger(__name__)


class _Refused(Exception):
    """No memory was handed over; the text says why."""


class _Neighbour:
    """A process that handed memory over, and the connection that ends with it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.asking = threading.Lock()
        self.ranges: list[tuple[int, int, memoryview]] = []
        """Address, end and view of each piece of its memory."""
        self.silent_until = 0.0
        """It does not hand over all of its memory; what else there is is asked for again only then."""

    @property
    def gone(self) -> bool:
        """Whether its process has closed the connection: it says nothing by itself otherwise."""
        if self.asking.locked():
            return False
        fd = self.sock.fileno()
        if fd < 0:  # another thread has let it go
            return True
        poll = select.poll()  # one object must not be asked by two threads
        poll.register(fd, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))

    def view(self, address: int, length: int) -> memoryview | None:
        """A range of what was handed over so far; None where it is not in one of these."""
        for start, end, view in self.ranges:
            if start <= address and address + length <= end:
                return view[address - start : address - start + length]
        return None


class Neighbours:
    """The neighbours of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Neighbour] = {}
        self._strangers: dict[str, float] = {}
        self._closed = False

    def view(self, segment: str, address: int, length: int) -> memoryview | None:
        """The range of another segment's memory, to be read and written in place; None where it is not to be had.

        Hold it no longer than a copy takes.
        """
        neighbour = self._known.get(segment)
        if neighbour is None:
            neighbour = self._meet(segment)
            if neighbour is None:
                return None
        elif neighbour.gone:
            self.forget(segment)
            return None
        found = neighbour.view(address, length)
        return found if found is not None else self._ask(segment, neighbour, address, length)

    def knows(self, segment: str) -> bool:
        """Whether a segment's memory is here already."""
        return segment in self._known

    def forget(self, segment: str) -> None:
        """Let its memory go."""
        with self._lock:
            neighbour = self._known.pop(segment, None)
        if neighbour is not None:
            neighbour.ranges = []
            neighbour.sock.close()

    def let_go(self, segment: str, address: int) -> None:
        """Let go of the one piece of its memory that lies at an address: it was lent for a while."""
        neighbour = self._known.get(segment)
        if neighbour is not None:
            with neighbour.asking:
                neighbour.ranges = [each for each in neighbour.ranges if not each[0] <= address < each[1]]

    def forget_gone(self) -> None:
        """Let go of the memory of all whose process has ended. To be called now and then."""
        for segment, neighbour in list(self._known.items()):
            if neighbour.gone:
                self.forget(segment)

    def close(self) -> None:
        """Let go of all. Twice is harmless."""
        with self._lock:
            self._closed = True
        for segment in list(self._known):
            self.forget(segment)

    def _meet(self, segment: str) -> _Neighbour | None:
        now = time.monotonic()
        if self._strangers.get(segment, 0.0) > now:
            return None
        try:
            sock = _connect(segment)
        except (OSError, _Refused) as error:
            if isinstance(error, _Refused):
                log.warning("segment %s is not read as a neighbour's: %s", segment, error)
            with self._lock:
                if len(self._strangers) >= MAX_STRANGERS:
                    self._strangers.clear()
                self._strangers[segment] = now + ASK_AGAIN_SECONDS
            return None
        with self._lock:
            met = _Neighbour(sock)
            if self._closed:
                sock.close()
                return None
            kept = self._known.setdefault(segment, met)
        if kept is not met:
            sock.close()
        return kept

    def _ask(self, segment: str, neighbour: _Neighbour, address: int, length: int) -> memoryview | None:
        with neighbour.asking:
            found = neighbour.view(address, length)
            if found is not None:
                return found
            if time.monotonic() < neighbour.silent_until:
                return None
            try:
                _hand_over(neighbour, address, length)
            except (OSError, MooncakeError, _Refused) as error:
                log.info("segment %s hands over no memory at %#x: %s", segment, address, error)
                if not isinstance(error, _Refused):
                    self.forget(segment)
                else:
                    neighbour.silent_until = time.monotonic() + ASK_AGAIN_SECONDS
                return None
            return neighbour.view(address, length)


def _connect(segment: str) -> socket.socket:
    """A connection to the process that serves a segment. Raises ``OSError`` where none does here, ``_Refused``."""
    sock = forks.hold(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    try:
        sockets.set_timeouts(sock, receive=ANSWER_SECONDS, send=ANSWER_SECONDS)
        sock.connect(socket_of(segment))
        uid = peer_uid(sock)
    except BaseException:
        sock.close()
        raise
    if uid != os.geteuid():
        sock.close()
        raise _Refused(f"it belongs to user {uid}")
    return sock


def _hand_over(neighbour: _Neighbour, address: int, length: int) -> None:
    """Ask for the memory around a range, and map it. Raises ``OSError``, ``MooncakeError``, ``_Refused``."""
    neighbour.sock.sendall(DescriptorRequest(address, length).pack())
    packet, fds, _, _ = socket.recv_fds(neighbour.sock, MAX_PACKET + 1, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        if not packet:
            raise ConnectionResetError("it closed the connection")
        answer = unpack_answer(packet, peer="on this host")
        if isinstance(answer, str) or not fds:
            raise _Refused(answer if isinstance(answer, str) else "no descriptor came")
        mapped = map_handed_over(fds[0])
        if not _whole(answer, length, mapped.length):
            raise UsageError(detail="less memory was handed over than was asked for")
    finally:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
    start = address - answer.offset
    neighbour.ranges = [*neighbour.ranges, (start, start + mapped.length, mapped.view())]


def _whole(grant: Grant, length: int, size: int) -> bool:
    """Whether a grant is for all that was asked, in one piece that exists."""
    return grant.length >= length and not grant.more and grant.offset + length <= size
