"""Ports for tests: reserved ones for servers that must be told a number, and closed ones that nobody listens at.

"Free a moment ago" is a race: another test, another run of the suite, or the kernel may take the port in between. So
a port that is handed out here stays ours until this process ends: between test processes by a lock on a file of its
number, and from the kernel by lying below the ports that it gives out by itself.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

LOWEST = 10_000
"""Below are the ports that services have by custom."""

TRIES = 10_000

_locks = Path(tempfile.gettempdir()) / f"mooncake-test-ports-{os.getuid()}"
_held: list[int] = []


def _below_ephemeral() -> int:
    """The first port that the kernel may give to whoever binds to none."""
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def _lock(port: int) -> int | None:
    """A descriptor that holds a port's lock; None where another process has it."""
    fd = os.open(_locks / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _is_free(port: int) -> bool:
    """Whether a server could listen there, at any address of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def reserved_port(adjacent: int = 1) -> int:
    """The first of ``adjacent`` ports that no other test uses until this process ends."""
    _locks.mkdir(exist_ok=True)
    for _ in range(TRIES):
        first = random.randrange(LOWEST, _below_ephemeral() - adjacent)
        locked: list[int] = []
        for port in range(first, first + adjacent):
            fd = _lock(port)
            if fd is None:
                break
            locked.append(fd)
            if not _is_free(port):
                break
        else:
            _held.extend(locked)
            return first
        for fd in locked:
            os.close(fd)
    raise AssertionError(f"no {adjacent} adjacent ports between {LOWEST} and {_below_ephemeral()} are free")


def closed_port() -> int:
    """A port of the loopback that refuses connections until this process ends: it is bound, and nobody listens."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    port = int(holder.getsockname()[1])
    _held.append(holder.detach())
    return port
