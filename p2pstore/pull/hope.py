"""Whether a pull to which nothing comes may still hope. Pure; the time is the caller's, in seconds.

**Everything is counted since the last bytes.** A source that is found anew, a connection that is made, an answer that
brings none of the object: none of these begins the count again, or a source that never delivers would be asked for
ever. Only bytes do, and enough of them that one a minute is not enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

NO_BYTE_SECONDS = 60.0
"""How long a get goes on asking sources that are there and send nothing: longer than three stalled connections."""

NO_SOURCE_SECONDS = 30.0
"""How long a get waits for a source of what is missing: longer than an agent takes to start again on a busy machine."""

NO_HOLDER_SECONDS = 3.0
"""How long a get waits when nobody at all is listed as holding the object, and nobody has sent any of it."""

BUSY_SECONDS = 3600.0
"""How long a get waits for a place at holders that serve as many receivers as they can."""

WRITE_SECONDS = 300.0
"""How long a write to the destination may take when nothing else goes on: a file server starts again in that time."""

LEAST_BYTES = 64 * 1024
"""Fewer bytes than these do not begin the count again, unless they complete a chunk."""

MOST_CHUNKS = 64
"""So many chunks' worth of bytes may come without one that is whole; what comes then does not begin the count again.
More than all channels of all sources have under way at once."""

QUIET_SECONDS = 5.0
TELL_SECONDS = 15.0
"""After so long without bytes the user is told what is waited for, and then again and again."""

MAX_STEP_SECONDS = 5.0
"""A look that comes later than this counts as this: the process itself stood still, and blames nobody for it."""


class Wait(Enum):
    """What a pull waits for."""

    BYTES = "bytes"
    """Of a source that is there."""

    SOURCE = "source"
    """Nobody who is known has what is missing."""

    PLACE = "place"
    """At a holder that is busy."""

    WRITE = "write"
    """By the destination."""


@dataclass(frozen=True)
class Sight:
    """How a pull stands. ``received`` are bytes that came, ``verified`` those of whole chunks among them.

    ``stuck``: nothing is under way, and no source has what is missing. ``busy``: a holder may have a place later.
    ``writing``: a write to the destination is under way. ``candidates`` is how many are listed as holders, and
    ``looked`` whether anybody has looked for them yet. ``withdrawn``: a holder serves it no more, and said why.
    ``queued``: a holder said that what was asked of it waits until it has served others.
    """

    received: int
    verified: int
    stuck: bool
    busy: bool
    writing: bool
    candidates: int
    looked: bool = True
    withdrawn: bool = False
    queued: bool = False


class Hope:
    """The hope of one pull. ``least`` are the bytes that begin the count again, of ``most`` that complete no chunk."""

    def __init__(self, now: float, *, least: int = LEAST_BYTES, most: float = math.inf) -> None:
        self.wait = Wait.BYTES
        """What is waited for, as of the last look."""
        self.seconds = 0.0
        """How long that has been so since the last bytes."""
        self._least = least
        self._most = most
        self._in_vain = 0  # bytes that came since the last whole chunk
        self._seen = now
        self._received = 0
        self._verified = 0
        self._fed = False
        self._looked = False
        self._withdrawn = False
        self._candidates = 0
        self._waited: dict[Wait, float] = {}  # since the last bytes
        self._told = 0.0  # of all that was waited since then

    @property
    def quiet_seconds(self) -> float:
        """How long nothing has come."""
        return sum(self._waited.values())

    @property
    def limit(self) -> float:
        """How long it may wait for what it waits for, in seconds."""
        if self.wait is Wait.PLACE:
            return BUSY_SECONDS
        if self.wait is Wait.WRITE:
            return WRITE_SECONDS
        if self.wait is Wait.BYTES:
            return NO_BYTE_SECONDS
        # Who has sent some of it may be starting again, though its lease has run out.
        somebody = self._candidates or not self._looked or (self._fed and not self._withdrawn)
        return NO_SOURCE_SECONDS if somebody else NO_HOLDER_SECONDS

    @property
    def over(self) -> bool:
        """Whether to give up."""
        return self.seconds > self.limit

    @property
    def left(self) -> float:
        """Seconds until it will be over, if nothing changes."""
        return max(0.0, self.limit - self.seconds)

    def look(self, now: float, sight: Sight) -> None:
        """The pull stands like this now."""
        step = min(now - self._seen, MAX_STEP_SECONDS)
        self._seen = now
        self._candidates = sight.candidates
        self._withdrawn = sight.withdrawn
        if sight.looked and not self._looked:  # on a busy machine that takes a while, in which nobody can be known
            self._looked = True
            self._waited.pop(Wait.SOURCE, None)
        if self._progress(sight):
            self._waited.clear()
            self._told = 0.0
            step = 0.0
        self.wait = _wait(sight)
        self._waited[self.wait] = self._waited.get(self.wait, 0.0) + step
        # Without a source nothing can come either: that time counts for both.
        self.seconds = self._waited[self.wait]
        if self.wait is Wait.BYTES:
            self.seconds += self._waited.get(Wait.SOURCE, 0.0)

    def _progress(self, sight: Sight) -> bool:
        """Whether enough has come since the last time."""
        came, whole = sight.received - self._received, sight.verified != self._verified
        if not whole and came < self._least:
            return False
        self._in_vain = 0 if whole else self._in_vain + came
        self._received, self._verified = sight.received, sight.verified
        self._fed |= whole
        return self._in_vain <= self._most

    def tells(self) -> bool:
        """Whether the user should hear now what is waited for; true once a time."""
        quiet = self.quiet_seconds
        if quiet < (self._told + TELL_SECONDS if self._told else QUIET_SECONDS):
            return False
        self._told = quiet
        return True


def _wait(sight: Sight) -> Wait:
    if sight.writing:
        return Wait.WRITE
    if sight.stuck:
        return Wait.PLACE if sight.busy else Wait.SOURCE
    return Wait.PLACE if sight.queued else Wait.BYTES
