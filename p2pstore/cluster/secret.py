"""The cluster secret of a node: the one that it signs with, and those that it takes from others.

A secret in a file may be changed while nodes run. No two hosts get the new one at the same moment, so the one before
stays good for ``ROTATION_SECONDS``: it is taken from others, and tried with others who do not take the new one yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from engine.config.again import Renewed
from engine.config.secret_file import read_secret
from p2pstore.settings.secrets import doubts_of_file, doubts_of_secret

ROTATION_SECONDS = 3600.0
"""For a new secret to reach every host."""


class ClusterSecret:
    """A secret that does not change, or one in a file that may. Belongs to one event loop."""

    def __init__(self, given: bytes | Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` tells seconds, and never goes back. Raises ``BadConfig`` for a file that cannot be read."""
        self._clock = clock
        self._file = given if isinstance(given, Path) else None
        self._renewed: Renewed[bytes] | None = None
        if isinstance(given, bytes):
            self._now = given
        else:
            self._renewed = Renewed([given], lambda: read_secret(given, "cluster secret"), clock=clock)
            self._now = self._renewed.value
        self._before: bytes | None = None
        self._changed = 0.0

    async def good(self) -> tuple[bytes, ...]:
        """The secrets that hold now, the one to sign with first."""
        if self._renewed is not None:
            found = await self._renewed.current()
            if found != self._now:
                self._before, self._now, self._changed = self._now, found, self._clock()
        before = self._before
        if before is None or self._clock() > self._changed + ROTATION_SECONDS:
            return (self._now,)
        return self._now, before

    def doubts(self) -> list[str]:
        """Why it may be no secret to others: a sentence each."""
        of_file = doubts_of_file(self._file) if self._file is not None else []
        return [*doubts_of_secret(self._now), *of_file]


def cluster_secret(given: bytes | Path | ClusterSecret | None) -> ClusterSecret | None:
    """What was given, as a ``ClusterSecret``. Raises ``BadConfig`` for a file that cannot be read."""
    return given if given is None or isinstance(given, ClusterSecret) else ClusterSecret(given)
