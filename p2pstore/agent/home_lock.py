"""The lock on a home: who holds it, and whether a home that an agent locked is still its own.

The lock's file says who its holder is: on its first line a pid, on the second where that pid means something, for many
hosts and containers may see one directory. A home may be removed or replaced under a living agent; the lock's file is
then another one, or gone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from engine import forks
from engine.files.locks import FileLock
from engine.files.system import system
from engine.files.writing import write_note
from engine.net.host_id import known_boot_id
from engine.processes import ProcessHandle, start_time
from p2pstore.agent.home import Home, listens
from p2pstore.errors import AgentRunning, HomeElsewhere, HomeUnusable

OWN_FILE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How the home's own files are opened: where others can write, one may have put a link or a pipe there."""

MAX_TEXT = 4096
"""Bytes of the lock's text."""

BEAT_SECONDS = 10.0
"""Between two signs of life in the lock's file, for hosts whose locks are not seen by one another."""

SILENT_SECONDS = 45.0
"""After so long without a sign of life the agent of another host, whose lock nobody sees, counts as dead."""

ASKED_SECONDS = 1.0
"""For others to let go of a lock that they took only to ask who holds it."""

PAUSE = 0.01
"""Between two attempts meanwhile."""

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO})
"""What is answered where a directory was removed, or its file system went away."""


@dataclass(frozen=True)
class Holder:
    """Who holds a home's lock, as far as its file says. ``pid`` is 0 where it does not.

    ``boot``, ``pids`` and ``started`` say on which boot of which host, in which PID namespace, and since when.
    ``socket`` is where the agent listens, which may be another place than the home says. ``token`` is the holder's own.
    """

    pid: int = 0
    host: str = ""
    boot: str = ""
    pids: int = 0
    started: int = 0
    socket: str = ""
    token: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """What this process writes."""
        pid = os.getpid()
        return cls(
            pid, socket.gethostname(), known_boot_id(), _pid_namespace(), start_time(pid), token=secrets.token_hex(8)
        )

    @classmethod
    def parse(cls, text: bytes) -> Holder:
        """Who a lock's text names; whatever is not understood is left out."""
        first, _, rest = text.partition(b"\n")
        pid = int(first) if first.strip().isdigit() and len(first) < 12 else 0
        try:
            found = json.loads(rest or b"{}")
        except ValueError:
            found = {}
        known = {f.name: found[f.name] for f in fields(cls) if isinstance(found, dict) and f.name in found}
        kept = {name: value for name, value in known.items() if type(value) is type(getattr(cls, name))}
        return cls(**{**kept, "pid": pid})

    def text(self) -> bytes:
        """What stands in the lock's file."""
        return f"{self.pid}\n{json.dumps(asdict(self))}\n".encode()

    @property
    def on_this_host(self) -> bool:
        """Whether it runs on this boot of this host."""
        return not self.boot or self.boot == known_boot_id()

    @property
    def here(self) -> bool:
        """Whether its pid is a process's number here: not of another host, nor of another container."""
        return self.on_this_host and (not self.pids or self.pids == _pid_namespace())

    @property
    def whereabouts(self) -> str:
        """Where it runs, for people."""
        host = self.host or "another host"
        return f"{host}, in another container (PID namespace)" if self.on_this_host else host


class HomeLock:
    """A home's lock, held by this process. Made by ``locked``."""

    def __init__(self, home: Home, fd: int) -> None:
        self._path = home.lock
        self._fd = fd
        self._holder = Holder.this_process()
        self._beat = 0.0
        self._write()

    def lost(self) -> str:
        """Why the home is not this agent's any more; empty while it is, or cannot be told."""
        try:
            text = self._path.read_bytes()[:MAX_TEXT].rstrip(b"\0")
        except OSError as error:
            return (error.strerror or "it is gone").lower() if error.errno in _GONE else ""
        found = Holder.parse(text)
        if found.token == self._holder.token:
            self._show_life()
            return ""
        if not found.pid:
            return "another one is in its place"
        return f"an agent on {found.host or 'another host'} (pid {found.pid}) has taken it over"

    def moved(self, path: Path) -> None:
        """Say where the agent listens now. Raises ``OSError``."""
        self._holder = Holder(**{**asdict(self._holder), "socket": str(path)})
        self._write()

    def _write(self) -> None:
        write_note(self._fd, self._holder.text())

    def _show_life(self) -> None:
        if time.monotonic() - self._beat > BEAT_SECONDS:
            self._beat = time.monotonic()
            with contextlib.suppress(OSError):  # it is for others, who may look at other signs
                os.utime(self._fd)


@contextlib.contextmanager
def locked(home: Home) -> Iterator[HomeLock]:
    """Hold the home's lock, and say so in it.

    Raises ``AgentRunning`` or ``HomeElsewhere``, which name the holder, or ``HomeUnusable``.
    """
    with contextlib.ExitStack() as held:
        try:
            fd = system.open(home.lock, os.O_RDWR | os.O_CREAT | OWN_FILE, 0o600)
            held.callback(system.close, fd)
            forks.hold_descriptor(fd)
            lock = _lock(home, fd)
            held.callback(lock.let_go)
            _look_for_unseen(home, fd, lock)
            mine = HomeLock(home, fd)
        except OSError as error:
            raise HomeUnusable(path=home.lock, detail=error.strerror or error) from None
        yield mine
        with contextlib.suppress(OSError):
            write_note(fd, b"")


def _lock(home: Home, fd: int) -> FileLock:
    """The lock. Whoever only asks who holds it has it for a moment, too. Raises ``AgentRunning``, ``HomeElsewhere``."""
    deadline = time.monotonic() + ASKED_SECONDS
    while True:
        try:
            return FileLock(fd, home.lock)
        except BlockingIOError:
            found = _read(fd)
            if _lives(found) or time.monotonic() > deadline:
                raise _taken(home, found) from None
        time.sleep(PAUSE)


def holder(home: Home) -> Holder | None:
    """Who holds the lock of ``home``, or None when nobody does."""
    try:
        fd = system.open(home.lock, os.O_RDONLY | OWN_FILE)
    except OSError:
        return None
    try:
        found = _read(fd)
        try:
            seen = FileLock(fd, home.lock, shared=True).seen
        except BlockingIOError:
            return found
        return found if not seen and _lives(found) else None
    except OSError:
        return None
    finally:
        system.close(fd)


def waits_for(home: Home) -> str:
    """What the agent of ``home`` waits for, as it says; empty where it says nothing."""
    try:
        said = json.loads(home.waiting.read_bytes())
    except (OSError, ValueError):
        return ""
    return str(said.get("for", "")) if isinstance(said, dict) else ""


def _look_for_unseen(home: Home, fd: int, lock: FileLock) -> None:
    """Raise for a holder that the lock does not tell of: the file system has none, or none that other hosts see."""
    found = _read(fd)
    unseen = not lock.seen and (_lives(found) or listens(home.socket))
    silent = abs(time.time() - os.fstat(fd).st_mtime)
    if unseen or (found.pid and not found.on_this_host and silent < SILENT_SECONDS):
        raise _taken(home, found)


def _taken(home: Home, found: Holder) -> AgentRunning | HomeElsewhere:
    if found.pid and not found.here:
        return HomeElsewhere(home=home.root, host=found.whereabouts, pid=found.pid)
    return AgentRunning(home=home.root, pid=found.pid or "unknown")


def _lives(found: Holder) -> bool:
    if not found.here or not found.pid:
        return False
    with ProcessHandle(found.pid, found.started) as process:
        return not process.ended()


def _read(fd: int) -> Holder:
    return Holder.parse(system.pread(fd, MAX_TEXT, 0).rstrip(b"\0"))


def _pid_namespace() -> int:
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return 0
