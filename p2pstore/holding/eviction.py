"""Which copies may be deleted, and which of these are. Pure: fed what there is and what time it is.

Only a replica that this agent wrote may go by itself: never what was registered, what was kept of a stream, what is
pinned, or what somebody else wrote or has changed. Whether it is the last copy in the cluster, and whether the files
are still what they were, is looked at when one is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

GOLD, KEPT, REPLICA, PART = "gold", "kept", "replica", "part"
"""Roles of copies: registered, kept of a stream, brought by a get, and some files of an object."""

REST_SECONDS = 600.0
"""A quota takes nothing that came or was used so recently: somebody is about to use it."""


@dataclass(frozen=True)
class Copy:
    """One copy; times are seconds since the epoch, 0 where nobody knows. ``written``: by this agent, as it noted."""

    name: str
    place: str
    manifest: str
    role: str
    size: int
    files: int = 0
    since: float = 0.0
    used: float = 0.0
    pinned: bool = False
    written: bool = False

    @property
    def last(self) -> float:
        """When it came or was used last."""
        return max(self.since, self.used)

    @property
    def stays(self) -> str:
        """Why it is not deleted by itself, whatever is asked for; empty where it may be."""
        if self.role == GOLD:
            return "it was registered: its files are yours"
        if self.pinned:
            return "it is pinned"
        if self.role == KEPT:
            return "it was kept of a stream: unregister it with --delete"
        if self.role == PART:
            return "it is a part of an object"
        if not self.written:
            return "this agent did not write its files, or cannot know them again"
        return ""


def _keeps_nothing(_: str) -> bool:
    return False


@dataclass(frozen=True)
class Criteria:
    """What a prune is asked for: seconds since the last use, bytes, and which names stay. All of them must fit."""

    older_than: float = 0.0
    larger_than: int = 0
    keeps: Callable[[str], bool] = field(default=_keeps_nothing)

    def chosen(self, copies: Iterable[Copy], now: float) -> list[Copy]:
        """What may go, and is asked for; the one that was used last comes last."""
        found = [copy for copy in copies if not copy.stays and self._fits(copy, now)]
        return sorted(found, key=_by_use)

    def _fits(self, copy: Copy, now: float) -> bool:
        old = now - copy.last >= self.older_than
        return old and copy.size >= self.larger_than and not self.keeps(copy.name)


@dataclass(frozen=True)
class Quota:
    """How many bytes replicas may take. Above ``high`` of that some go, until no more than ``low`` of it is taken."""

    bytes: int
    high: float = 1.0
    low: float = 0.9

    def taken(self, copies: Iterable[Copy]) -> int:
        """What counts: the replicas that this agent wrote, pinned ones too."""
        return sum(copy.size for copy in copies if counts(copy))

    def evicted(
        self, copies: Sequence[Copy], now: float, passed: Collection[tuple[str, str]] = frozenset()
    ) -> list[Copy]:
        """What is to go, in this order: those first that were not used for longest.

        ``passed`` are the names and places of what could not go after all: it counts, and others go instead.
        """
        taken = self.taken(copies)
        if taken <= self.bytes * self.high:
            return []
        gone = []
        for copy in sorted(copies, key=_by_use):
            if taken <= self.bytes * self.low:
                break
            rested = now - copy.last >= REST_SECONDS and (copy.name, copy.place) not in passed
            if counts(copy) and not copy.stays and copy.size and rested:
                gone.append(copy)
                taken -= copy.size
        return gone


def counts(copy: Copy) -> bool:
    """Whether a copy is one of those that a quota is for."""
    return copy.role == REPLICA and copy.written


def _by_use(copy: Copy) -> tuple[float, str, str]:
    return copy.last, copy.name, copy.place
