"""Whether a pull that nobody feeds may still hope. Pure; the time is the caller's, in seconds."""

from __future__ import annotations

NO_SOURCE_SECONDS = 20.0
"""How long a get waits for a source of what is missing: longer than an agent takes to start again on a busy machine."""

NO_HOLDER_SECONDS = 3.0
"""How long a get waits when nobody at all is listed as holding the object, and nobody has sent any of it."""

QUIET_SECONDS = 2.0
"""After so long without a source the user is told what is being waited for."""


class Hope:
    """The hope of one pull, which ends when it has been stuck for too long."""

    def __init__(self) -> None:
        self._stuck_since: float | None = None

    def tells(self, now: float) -> bool:
        """Whether it has been stuck for so long that the user should hear of it."""
        return self._stuck_since is not None and now - self._stuck_since > QUIET_SECONDS

    def over(self, now: float, *, stuck: bool, waiting: bool, candidates: int, fed: bool) -> bool:
        """Whether to give up.

        ``stuck``: nothing is under way, and no source has what is missing. ``waiting``: a holder is busy, and may have
        a place later. ``candidates`` is how many are listed as holders. ``fed``: a source has sent some of it, and may
        be starting again, though its lease has run out.
        """
        if not stuck or waiting:
            self._stuck_since = None
            return False
        if self._stuck_since is None:
            self._stuck_since = now
        return now - self._stuck_since > (NO_SOURCE_SECONDS if candidates or fed else NO_HOLDER_SECONDS)
