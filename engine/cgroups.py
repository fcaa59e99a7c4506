"""Control groups: what a job or container leaves a process of memory and processors, and whom the kernel killed."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")

UNLIMITED = 1 << 60
"""Bytes from which a limit is none: version 1 has no word for it, but a very large number."""


def memory_groups(pid: int | str = "self", *, proc: Path = Path("/proc"), root: Path = ROOT) -> Iterator[Path]:
    """The directories of the groups that bound a process's memory, its own first; of either version."""
    return _groups("memory", (*_LIMITS, *_KILLS), pid, proc, root)


def processors(pid: int | str = "self", *, proc: Path = Path("/proc"), root: Path = ROOT) -> int:
    """How many processors a process may keep busy, at least 1: those that it may run on, as far as its groups let it.

    What of a processor is over counts as one more. Those that it may run on are this process's.
    """
    most: float = len(os.sched_getaffinity(0))
    for group in _groups("cpu", _SHARES, pid, proc, root):
        words = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # else there is no limit
            most = min(most, int(words[0]) / int(words[1]))
    return max(1, math.ceil(most))


def _groups(controller: str, names: Collection[str], pid: int | str, proc: Path, root: Path) -> Iterator[Path]:
    """A process's groups that have a file of these names."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        inside = top / path.lstrip("/")
        while True:
            if inside.is_dir() and any((inside / name).exists() for name in names):
                yield inside
            if inside == top or top not in inside.parents:
                break
            inside = inside.parent


_LIMITS = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
_KILLS = ("memory.events", "memory.oom_control")
_SHARES = ("cpu.max", "cpu.cfs_quota_us")
_CACHE = ("inactive_file", "active_file", "total_inactive_file", "total_active_file")


def memory_left(pid: int | str = "self", *, proc: Path = Path("/proc"), root: Path = ROOT) -> int | None:
    """Bytes that a process's groups let it take yet; None without a limit.

    What the kernel can drop or swap out is counted in, all free swap too: rather too much is told than too little.
    """
    left: list[int] = []
    for group in memory_groups(pid, proc=proc, root=root):
        for limit_name, used_name in _LIMITS.items():
            limit, used = _number(group / limit_name), _number(group / used_name)
            if limit is None or used is None or limit >= UNLIMITED:
                continue
            counts = _counts(group / "memory.stat")
            totals = [counts[name] for name in _CACHE if name in counts]
            droppable = sum(totals[-2:])  # version 1 has its own and, after them, the totals
            left.append(max(0, limit - used + droppable))
    return min(left) + (_of_the_machine(proc, "SwapFree") or 0) if left else None


def memory_available(*, proc: Path = Path("/proc"), root: Path = ROOT) -> int | None:
    """Bytes that this process may take yet, by its groups and by what the machine has; None where neither says."""
    has = _of_the_machine(proc, "MemAvailable")
    known = [each for each in (memory_left(proc=proc, root=root), has) if each is not None]
    return min(known) if known else None


def memory_kills(pid: int | str = "self", *, proc: Path = Path("/proc"), root: Path = ROOT) -> dict[Path, int]:
    """How many processes the kernel has killed for want of memory in each of a process's groups."""
    found = {}
    for group in memory_groups(pid, proc=proc, root=root):
        for name in _KILLS:
            count = _counts(group / name).get("oom_kill")
            if count is not None:
                found[group / name] = count
    return found


def killed_since(before: dict[Path, int]) -> Path | None:
    """The group in which the kernel has killed somebody since ``memory_kills``; None where it has not."""
    for file, count in before.items():
        if _counts(file).get("oom_kill", 0) > count:
            return file.parent
    return None


def _of_the_machine(proc: Path, name: str) -> int | None:
    """Bytes of a line of /proc/meminfo."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return None
    words = next((line.split() for line in lines if line.startswith(f"{name}:")), [])
    return int(words[1]) * 1024 if len(words) > 1 and words[1].isdigit() else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number, and no limit
        return None


def _counts(path: Path) -> dict[str, int]:
    """A file of lines with a word and a number."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
