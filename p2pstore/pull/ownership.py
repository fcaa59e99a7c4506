"""Whose a partial form is, and whether another get may go on from it. Pure, but for ``this_process``.

A lock alone does not tell: there are file systems on which flock(2) succeeds for everybody. So each get leaves a note
of the process that does it, and takes the note back when it has ended. What is not proven dead is left alone.
"""

from __future__ import annotations

import enum
import functools
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from engine.net.host_id import boot_id
from engine.processes import start_time

FORMAT = "mooncake.get.v2"


@dataclass(frozen=True)
class Owner:
    """The process that does a get, and of which object. ``boot`` and ``pids`` say where ``pid`` means something."""

    manifest: str
    boot: str
    pids: int
    pid: int
    started: int

    def to_bytes(self) -> bytes:
        """As it is written down."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Owner | None:
        """What ``to_bytes`` made; None for anything else, what was not yet written to its end included."""
        try:
            found = json.loads(data)
            if not data.endswith(b"\n") or found.pop("format") != FORMAT:
                return None
            owner = cls(**found)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return None
        strings, numbers = (owner.manifest, owner.boot), (owner.pids, owner.pid, owner.started)
        right = all(isinstance(v, str) for v in strings) and all(type(v) is int for v in numbers)
        return owner if right else None


def this_process(manifest: str) -> Owner:
    """This process, as the owner of a get of that object."""
    return replace(_process(os.getpid()), manifest=manifest)


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> Owner:
    try:
        boot, pids = boot_id(), os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        boot, pids = "", 0
    return Owner("", boot, pids, pid, start_time(pid))


class Verdict(enum.Enum):
    """What may be done with a partial form that is there."""

    FREE = enum.auto()
    """Whoever wrote it writes it no more: it may be gone on from, or removed."""

    LIVE = enum.auto()
    """A get is writing it."""

    UNKNOWN = enum.auto()
    """Perhaps one is: it may be read, and is not touched."""


def judge(
    owner: Owner | None,
    me: Owner,
    *,
    ended: bool,
    locked: bool,
    local: bool,
    mine_is_live: bool,
    runs: Callable[[Owner], bool],
) -> Verdict:
    """What may be done with the partial form of ``owner``, whose lock was to be had.

    ``owner`` is None where its note cannot be read; ``ended`` says that it took the note back. ``locked`` says whether
    the lock means anything at all, ``local`` whether only this machine uses the file system, ``mine_is_live`` whether
    this very process has a get at work there, and ``runs`` whether a process of this machine still does.
    """
    if ended:
        return Verdict.FREE
    if owner is None:
        return Verdict.UNKNOWN
    if owner.boot and (owner.boot, owner.pids) == (me.boot, me.pids):
        if (owner.pid, owner.started) == (me.pid, me.started):
            return Verdict.LIVE if mine_is_live else Verdict.FREE
        if runs(owner):  # that it lives does not say that its get does, nor does a lock that everybody gets
            return Verdict.UNKNOWN if locked else Verdict.LIVE
        return Verdict.FREE
    if locked and (local or (owner.boot and owner.boot == me.boot)):
        return Verdict.FREE  # one kernel keeps its own locks
    return Verdict.UNKNOWN


def still_runs(owner: Owner) -> bool:
    """Whether the process of an owner on this machine is there."""
    now = start_time(owner.pid)
    return now != 0 and now == owner.started
