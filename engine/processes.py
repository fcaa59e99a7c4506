"""A process that is perhaps not our child: whether it still runs, its end, and signals that reach it and no other.

A process number alone says little, because numbers are used again. A pidfd (pidfd_open(2), Linux 5.3) stands for one
process for as long as it is open. Where there is none, the number and the start time together do, up to the moment
between the look and the signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

POLL_SECONDS = 0.02
"""Between two looks at a process that no pidfd can be had for."""


def start_time(pid: int) -> int:
    """Clock ticks between boot and the start of a process; 0 where there is no such process or it is a zombie.

    Source: proc(5). The command's name may hold spaces and brackets, so fields are counted after its last bracket.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return 0 if fields[0] in {"Z", "X"} else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def state(pid: int) -> str:
    """The letter of a process's state as proc(5) has it: ``T`` is stopped; empty where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def processor_seconds(pid: int) -> float:
    """Seconds of processor that a process has had, the kernel's for it included; 0.0 where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


class ProcessHandle:
    """One process, which another that is given its number later is not taken for. Close it, or use ``with``."""

    def __init__(self, pid: int, started: int = 0) -> None:
        """``started`` is its ``start_time``, where that is known: then a process that began at another is not meant."""
        self.pid = pid
        self._fd = -1
        self._gone = pid <= 0
        if not self._gone:
            try:
                self._fd = os.pidfd_open(pid)
            except ProcessLookupError:
                self._gone = True
            except (AttributeError, OSError):  # an old kernel, a sandbox that refuses the call, no descriptor left
                self._fd = -1
        now = start_time(pid)
        if now != (started or now) or (self._fd < 0 and not now):
            self._gone = True
        self._started = started or now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; the process goes on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def ended(self, seconds: float = 0.0) -> bool:
        """Wait up to so many seconds for its end; whether it has ended. A zombie has."""
        if self._gone:
            return True
        if self._fd >= 0:
            watch = select.poll()  # select(2) takes no descriptor from 1024 on, and an agent may have many
            watch.register(self._fd, select.POLLIN)
            return bool(watch.poll(1000 * seconds))
        until = time.monotonic() + seconds
        while start_time(self.pid) == self._started:
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended. Raises ``PermissionError`` for another user's process."""
        with contextlib.suppress(ProcessLookupError):
            if self._gone:
                return
            if self._fd >= 0:
                signal.pidfd_send_signal(self._fd, number)
            elif start_time(self.pid) == self._started:
                os.kill(self.pid, number)
