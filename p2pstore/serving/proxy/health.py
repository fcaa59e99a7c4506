"""Whether an instance takes requests: what probes and failed requests say of it. Pure.

::

    NEW ──good──> UP ──refused, or MAX_FAILURES bad in a row──> DOWN ──GOOD_PROBES good in a row──> UP

Only probes decide, and a refused connection, which proves that nobody listens: an error that one request met may be the
request's own, and must not exclude one instance after the other. A failed request makes the next probe come at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engine.net.backoff import SOONER, Backoff

PROBE_SECONDS = 5.0
"""Between probes of an instance that is up."""

PROBE_TIMEOUT_SECONDS = 5.0
"""For the answer to one."""

DOUBT_SECONDS = 1.0
"""Between probes while what they say is not sure."""

MAX_FAILURES = 3
"""Bad probes in a row after which it is down."""

GOOD_PROBES = 2
"""Good ones in a row after which it is up again; a new instance needs one."""

RETURNS = Backoff(1.0, 15.0, jitter=SOONER)
"""Pauses between probes of an instance that is down."""


class State(Enum):
    """Whether it takes requests."""

    NEW = "new"
    UP = "up"
    DOWN = "down"


@dataclass(slots=True)
class Health:
    """Of one instance. Times by one clock, in seconds."""

    since: float
    """When it came into this state."""
    state: State = State.NEW
    why: str = "not probed yet"
    """Why it is not up; empty where it is."""
    next_probe: float = 0.0
    bad: int = 0
    good: int = 0

    def probed(self, problem: str | None, now: float, *, refused: bool = False) -> bool:
        """A probe ended, with a ``problem`` or without. True when that changed the state."""
        if problem is None:
            return self._was_good(now)
        self.good = 0
        self.bad += 1
        self.why = problem
        if self.state is State.UP:
            if refused or self.bad >= MAX_FAILURES:
                return self._is(State.DOWN, now, RETURNS.after(1))
            self.next_probe = now + DOUBT_SECONDS
            return False
        self.next_probe = now + RETURNS.after(self.bad)
        return False

    def suspect(self, now: float) -> None:
        """A request failed there: probe it at once."""
        self.next_probe = min(self.next_probe, now)

    def refused(self, problem: str, now: float) -> bool:
        """A request found nobody there. True when that changed the state."""
        if self.state is not State.UP:
            return False
        self.why, self.bad, self.good = problem, 1, 0
        return self._is(State.DOWN, now, RETURNS.after(1))

    def _was_good(self, now: float) -> bool:
        self.bad = 0
        self.good += 1
        if self.state is State.UP:
            self.next_probe, self.why = now + PROBE_SECONDS, ""
            return False
        if self.state is State.DOWN and self.good < GOOD_PROBES:
            self.next_probe = now + DOUBT_SECONDS
            return False
        self.why = ""
        return self._is(State.UP, now, PROBE_SECONDS)

    def _is(self, state: State, now: float, pause: float) -> bool:
        self.state, self.since, self.next_probe = state, now, now + pause
        return True
