"""How processes of a host find one another: whoever comes first waits for the others, and makes what they share.

The first one takes a lock in the meeting's directory and listens at a socket beside it. The others connect, and say who
they are. When all have come, or have not for ``MEET_SECONDS``, it hands each of them the list of all, a socket to each
of the others, and memory that all share; from then on nobody is more than the others. Nothing of it is left when they
have all ended, however that was: what the directory has is in the way of nobody.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import forks
from engine.errors import UsageError
from engine.files.locks import FileLock
from engine.files.system import system
from engine.memory.shared import SharedMemory
from engine.protocol.local_socket import peer_uid, short_path

MEET_SECONDS = 30.0
"""So long those who have come wait for the others."""

HANDED_SECONDS = 10.0
"""For the one that came first to hand out what all share, once that is over."""

PAUSE_SECONDS = 0.02
"""Between two tries to be, or to reach, the one that came first."""

LOOK_SECONDS = 0.2
"""Between two looks whether the wait is still wanted."""

MAX_BYTES = 4 << 20
"""Of what one says of itself, or of the list of all."""

_LENGTH_BYTES = 4

log = logging.getLogger(__name__)

Hello = Mapping[str, Any]
"""What one says of itself, in JSON's types; ``rank`` is its number of all that may come."""


@dataclass
class Met:
    """Who came, in the order of ranks, and what they have together. ``links`` are by places in ``members``."""

    members: list[Hello]
    me: int
    links: dict[int, socket.socket] = field(default_factory=dict)
    memory: int = -1
    """A descriptor, the caller's as the links are; -1 where there is nobody else."""

    def close(self) -> None:
        """Let go of all of it; twice is harmless."""
        links, self.links = self.links, {}
        for link in links.values():
            link.close()
        memory, self.memory = self.memory, -1
        if memory >= 0:
            os.close(memory)


def meet(
    place: Path,
    hello: Hello,
    size: int,
    share: int,
    check: Callable[[], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Met:
    """Meet up to ``size`` - 1 others at ``place``, a path without its ending, in a directory that is ours alone.

    Each gets ``share`` bytes of the memory. ``check`` is called meanwhile, and raises where the wait is not wanted any
    more. Raises ``OSError`` where the place cannot be used, and ``UsageError`` for a rank that is there already.
    """
    until = clock() + MEET_SECONDS
    while True:
        check()
        lock = _locked(place.with_suffix(".lock"))
        if lock is not None:
            with lock:
                return _Host(place, hello, size, share).run(check, until, clock)
        met = _visited(place, hello, check, until + HANDED_SECONDS, clock)
        if met is not None:
            return met
        if clock() >= until:
            return Met([hello], 0)
        time.sleep(PAUSE_SECONDS)


class _Lock:
    """A lock that was taken, whose file goes with it."""

    def __init__(self, descriptor: int, held: FileLock, path: Path) -> None:
        self._descriptor = descriptor
        self._held = held
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            system.unlink(self._path)
        os.close(self._descriptor)
        self._held.let_go()


def _locked(path: Path) -> _Lock | None:
    """The lock, or None where another has it."""
    descriptor = system.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        held = FileLock(descriptor, path)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    with contextlib.suppress(OSError):
        if system.stat(path).st_ino == system.fstat(descriptor).st_ino:
            return _Lock(descriptor, held, path)
    held.let_go()  # whoever had it before has removed the file meanwhile
    os.close(descriptor)
    return None


class _Guest:
    """Who has connected, and what of its words has come."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.hello: Hello | None = None

    def read(self) -> None:
        """What has come. Raises ``OSError``, and ``ValueError`` for what makes no sense."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionResetError("it has gone")
        self.buffer += data
        length = int.from_bytes(self.buffer[:_LENGTH_BYTES], "little")
        if length > MAX_BYTES:
            raise ValueError("it says too much")
        if len(self.buffer) >= _LENGTH_BYTES + length and len(self.buffer) >= _LENGTH_BYTES:
            self.hello = json.loads(self.buffer[_LENGTH_BYTES:])
            if not isinstance(self.hello, dict) or not isinstance(self.hello.get("rank"), int):
                raise ValueError("it does not say who it is")


class _Host:
    """The one that came first."""

    def __init__(self, place: Path, hello: Hello, size: int, share: int) -> None:
        self._path = place.with_suffix(".sock")
        self._hello = hello
        self._size = size
        self._share = share
        self._guests: list[_Guest] = []

    def run(self, check: Callable[[], None], until: float, clock: Callable[[], float]) -> Met:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            forks.hold(listener)
            with contextlib.suppress(FileNotFoundError):
                system.unlink(self._path)
            with short_path(self._path) as short:
                system.bind(listener, short)
            stack.callback(self._remove)
            listener.listen(self._size)
            listener.setblocking(False)
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(listener, selectors.EVENT_READ)
            while self._missing and clock() < until:
                check()
                for key, _ in selector.select(max(0.0, min(LOOK_SECONDS, until - clock()))):
                    if key.data is None:
                        self._accept(listener, selector)
                    else:
                        self._hear(key.data, selector)
            return self._hand_out()

    @property
    def _missing(self) -> int:
        return self._size - 1 - sum(guest.hello is not None for guest in self._guests)

    def _close(self) -> None:
        for guest in self._guests:
            guest.sock.close()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            system.unlink(self._path)

    def _accept(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        forks.hold(sock)
        if peer_uid(sock) != os.geteuid():
            log.warning("another user's process is not let in")
            sock.close()
            return
        sock.setblocking(False)
        guest = _Guest(sock)
        self._guests.append(guest)
        selector.register(sock, selectors.EVENT_READ, guest)

    def _hear(self, guest: _Guest, selector: selectors.BaseSelector) -> None:
        try:
            guest.read()
            if guest.hello is None:
                return
            known = [
                self._hello["rank"],
                *(each.hello["rank"] for each in self._guests if each.hello and each is not guest),
            ]
            rank = guest.hello["rank"]
            if rank not in known and 0 <= rank < self._size:
                return
            fault: Exception = ValueError(f"rank {rank} is here already")
            _say(guest.sock, {"refused": str(fault)})
        except BlockingIOError:
            return
        except (OSError, ValueError, RecursionError) as error:
            fault = error
        log.info("a process that came is not shared with: %s", fault)
        selector.unregister(guest.sock)
        self._guests.remove(guest)
        guest.sock.close()

    def _hand_out(self) -> Met:
        """Give everybody what all share. Whoever has gone by now is missed by the others as one that goes later."""
        guests = sorted((guest for guest in self._guests if guest.hello), key=lambda guest: guest.hello["rank"])  # type: ignore[index]
        if not guests:
            return Met([self._hello], 0)
        members = sorted(
            [self._hello, *(guest.hello for guest in guests if guest.hello)], key=lambda each: each["rank"]
        )
        host = members.index(self._hello)
        try:
            memory = SharedMemory(len(members) * self._share)
        except UsageError as error:  # a limit, or no room: so each does without the others
            raise OSError(str(error)) from None
        ends: list[dict[int, socket.socket]] = [{} for _ in members]
        met = Met(members, host)
        try:
            for one in range(len(members)):
                for other in range(one):
                    ends[one][other], ends[other][one] = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            for guest in guests:
                me = next(place for place, each in enumerate(members) if each is guest.hello)
                handed = [memory.fd, *(end.fileno() for _, end in sorted(ends[me].items()))]
                with contextlib.suppress(OSError):
                    guest.sock.settimeout(HANDED_SECONDS)
                    _say(guest.sock, {"members": members, "me": me}, handed)
            met.links, ends[host] = ends[host], {}
            met.memory = forks.hold_descriptor(os.dup(memory.fd))
        except BaseException:
            met.close()
            raise
        finally:
            memory.close()
            for each in ends:
                for end in each.values():
                    end.close()
        for link in met.links.values():
            forks.hold(link)
        return met


def _visited(
    place: Path, hello: Hello, check: Callable[[], None], until: float, clock: Callable[[], float]
) -> Met | None:
    """What the one that came first hands out; None where it has gone. Raises ``UsageError``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        forks.hold(sock)
        descriptors: list[int] = []
        try:
            with short_path(place.with_suffix(".sock")) as short:
                sock.connect(short)
            _check_user(sock)
            sock.settimeout(LOOK_SECONDS)
            _say(sock, hello)
            said = _answer(sock, descriptors, check, until, clock)
        except (ConnectionError, FileNotFoundError, TimeoutError, ValueError):
            _close(descriptors)
            return None
        except BaseException:
            _close(descriptors)
            raise
    if "refused" in said:
        _close(descriptors)
        rule = "LOCAL_RANK differs in each process, MASTER_PORT in each start, and a process loads it once at a time"
        raise UsageError(detail=f"share='host': {said['refused']}; {rule}")
    members, me = said["members"], said["me"]
    others = [place for place in range(len(members)) if place != me]
    if len(descriptors) != 1 + len(others):
        _close(descriptors)
        raise OSError("descriptors were lost on their way: see 'ulimit -n'")
    for descriptor in descriptors:
        forks.hold_descriptor(descriptor)
    links = {place: socket.socket(fileno=each) for place, each in zip(others, descriptors[1:], strict=True)}
    return Met(members, me, links, descriptors[0])


def _check_user(sock: socket.socket) -> None:
    """Raise ``OSError`` where the other side is another user's."""
    if peer_uid(sock) != os.geteuid():
        raise PermissionError("another user's process listens there")


def _say(sock: socket.socket, what: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    data = json.dumps(what).encode()
    data = len(data).to_bytes(_LENGTH_BYTES, "little") + data
    if descriptors:
        sent = socket.send_fds(sock, [data], list(descriptors))
        data = data[sent:]
    sock.sendall(data)


def _answer(
    sock: socket.socket, descriptors: list[int], check: Callable[[], None], until: float, clock: Callable[[], float]
) -> dict[str, Any]:
    """One answer, and the descriptors that come with it. Raises ``TimeoutError``, ``OSError`` and ``ValueError``."""
    buffer = bytearray()
    while True:
        check()
        if clock() >= until:
            raise TimeoutError
        try:
            data, more, _, _ = socket.recv_fds(sock, 1 << 16, 253, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            continue
        descriptors += more
        if not data:
            raise ConnectionResetError
        buffer += data
        length = int.from_bytes(buffer[:_LENGTH_BYTES], "little")
        if length > MAX_BYTES:
            raise ValueError("too long an answer")
        if len(buffer) >= _LENGTH_BYTES + length:
            found: dict[str, Any] = json.loads(buffer[_LENGTH_BYTES:])
            return found


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
