"""Whether a request is served: what is predicted for it, beside the objectives. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum

from p2pstore.serving.costs import DecodeCost
from p2pstore.serving.events import Reason, Reject, RequestId
from p2pstore.serving.instances import Instance, Tracked, tbt

LEAST_RETRY_SECONDS = 1.0
MOST_RETRY_SECONDS = 60.0
"""What a refused client is told to wait, at least and at most."""


class Admission(Enum):
    """When a request that cannot be served in time is refused."""

    NONE = "none"
    """Never."""

    LATE = "late"
    """Each pool looks when the request comes to it: so decode refuses what is computed already."""

    EARLY = "early"
    """Both pools are looked at when the request arrives, and decode once more when it is computed."""

    PREDICTED = "predicted"
    """As early, but decode is looked at as it will be when the prompt is computed."""


@dataclass(frozen=True)
class Objectives:
    """The longest times to the first token and between tokens that are good enough, seconds."""

    ttft: float = 30.0
    tbt: float = 0.2

    def __post_init__(self) -> None:
        if not (self.ttft > 0 and self.tbt > 0):
            raise ValueError("an objective must be longer than 0 seconds")


@dataclass(slots=True)
class Gate:
    """Says no. ``cost`` is that of decode steps."""

    admission: Admission
    objectives: Objectives
    cost: DecodeCost

    def arriving(self, tracked: Tracked, decode: Instance, now: float) -> float:
        """The TBT that is predicted when a request is placed: as decode is now, or as it will be then."""
        if self.admission is not Admission.PREDICTED:
            return self.now(tracked, decode)
        at, step = tracked.first, self.cost.seconds(min(decode.tokens, self.cost.room))
        tokens, output, count = 0, 0.0, 0
        for one in itertools.chain(decode.running.values(), decode.coming.values()):
            if one.first <= at < _ends(one, now, step):
                tokens += one.context
                output += one.expected
                count += 1
        return tbt(self.cost, tokens, output / count if count else 0.0, tracked.length)

    def now(self, tracked: Tracked, decode: Instance) -> float:
        """The TBT that is predicted were it to join at once what decode has."""
        mean = decode.expected / len(decode.running) if decode.running else 0.0
        return tbt(self.cost, decode.tokens, mean, tracked.length)

    def at_arrival(self, request: RequestId, ttft: float, tbt_: float) -> Reject | None:
        """Whether what is predicted when it arrives is over an objective."""
        if self.admission is Admission.NONE:
            return None
        if ttft > self.objectives.ttft:
            return Reject(request, Reason.TTFT, retry_after(ttft - self.objectives.ttft), ttft)
        return None if self.admission is Admission.LATE else self.at_decode(request, tbt_)

    def at_decode(self, request: RequestId, tbt_: float) -> Reject | None:
        """Whether the TBT that is predicted is over its objective."""
        if self.admission is Admission.NONE or tbt_ <= self.objectives.tbt:
            return None
        return Reject(request, Reason.TBT, retry_after(tbt_), tbt_)


def retry_after(seconds: float) -> float:
    """What a client is told to wait, where so many seconds are too much."""
    return min(MOST_RETRY_SECONDS, max(LEAST_RETRY_SECONDS, seconds))


def _ends(tracked: Tracked, now: float, step: float) -> float:
    """When it leaves the batch.

    What waits for room begins now at the earliest. What should have ended goes on for half as long again as it did:
    that an output was longer than expected says that it is a long one.
    """
    if tracked.joined is None:
        return max(now, tracked.first) + (tracked.expected - 1) * step
    ends = tracked.joined + (tracked.expected - 1) * step
    return ends if ends > now else now + (now - tracked.joined) / 2
