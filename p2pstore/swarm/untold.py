"""What followers of a replica have not been told of yet: chunks that were verified meanwhile. Pure.

One log for all, of which each follower has been told a part, so that a chunk costs the same for one follower and for
sixty-four.
"""

from __future__ import annotations

MAX_LOG = 1024
"""Runs in the log above which those that all have been told of are forgotten."""


class Untold:
    """Verified runs that some follower has not been told of."""

    def __init__(self) -> None:
        self._log: list[range] = []
        self._told: dict[str, int] = {}  # how much of the log each follower has been told of

    def join(self, key: str) -> None:
        """Somebody follows, and is told of what comes from now on."""
        self._told[key] = len(self._log)

    def leave(self, key: str) -> None:
        """It is gone."""
        self._told.pop(key, None)

    def add(self, run: range) -> None:
        """A run was verified."""
        if len(self._log) >= MAX_LOG:
            self._forget()
        self._log.append(run)

    def take(self, key: str) -> tuple[range, ...]:
        """What a follower is told of now."""
        told, self._told[key] = self._told[key], len(self._log)
        return tuple(self._log[told:])

    def _forget(self) -> None:
        least = min(self._told.values(), default=len(self._log))
        del self._log[:least]
        for key in self._told:
            self._told[key] -= least
