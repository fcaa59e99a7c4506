"""What the processors do meanwhile, so that a figure that the machine decided is seen as such. Source: proc(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessorTime:
    """Ticks of the processors that this process may use, since the machine was started."""

    total: int
    idle: int

    @classmethod
    def now(cls, proc: Path = PROC, numbers: set[int] | None = None) -> ProcessorTime | None:
        """None where the system does not tell. ``numbers``: of the processors; those that this process may use."""
        wanted = {f"cpu{number}" for number in (os.sched_getaffinity(0) if numbers is None else numbers)}
        total = idle = 0
        try:
            for line in (proc / "stat").read_text(encoding="ascii").splitlines():
                name, *fields = line.split()
                if name in wanted:
                    ticks = [int(field) for field in fields[:8]]  # guests are counted among users
                    total += sum(ticks)
                    idle += ticks[3] + ticks[4]
        except (OSError, ValueError, IndexError):
            return None
        return cls(total, idle) if total else None


def busy_share(before: ProcessorTime | None, after: ProcessorTime | None) -> float | None:
    """The part of the time (0 to 1) in which the processors were not idle; what a host took from us counts as busy."""
    if before is None or after is None or after.total <= before.total:
        return None
    return min(1.0, max(0.0, 1 - (after.idle - before.idle) / (after.total - before.total)))
