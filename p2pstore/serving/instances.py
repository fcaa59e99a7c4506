"""What the policy knows of the instances and of the requests that it has placed. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from p2pstore.serving.costs import DecodeCost
from p2pstore.serving.ejection import Ejection
from p2pstore.serving.events import Block, Kind, RequestId

PACE_TOKENS = 16
"""Of a request, over which the pace of its tokens is measured: several may come at once, and then none for a while."""

PACE_SECONDS = 0.5
"""Between two measures of an instance's pace: all that it decodes have the same."""


@dataclass(slots=True, eq=False)
class Tracked:
    """A request, from its arrival until it is over."""

    request: RequestId
    length: int
    blocks: Sequence[Block]
    arrived: float
    limit: int | None = None
    tenant: str = ""
    placements: int = 0
    placed: float = 0.0
    """When it was placed last."""
    avoid: frozenset[str] = frozenset()
    """Instances that failed it: taken again where there is no other."""
    prefill: Instance | None = None
    """Where it is computed or waits for that; None before and afterwards."""
    decode: Instance | None = None
    reused: int = 0
    shared: int = 0
    """Blocks that it shares with requests before it."""
    work: float = 0.0
    """Seconds of prefill that it was placed with."""
    begins: float = 0.0
    """When its prefill can begin at the earliest: its blocks are there."""
    first: float = 0.0
    """When its first token is expected, or came."""
    expected: float = 0.0
    """Output tokens that are expected."""
    output: int = 0
    """Output tokens that came."""
    joined: float | None = None
    """When a decode instance took it into its batch."""
    paced_since: float | None = None
    """Since when its pace is measured; None before its first token."""
    paced_output: int = 0
    paced_tokens: int = 0
    """Its output then, and the context of its batch."""

    @property
    def context(self) -> int:
        """Tokens that its KV cache has."""
        return self.length + self.output

    @property
    def like(self) -> list[tuple[str, Hashable]]:
        """What its output is expected by: where its prompt parts from others', then its tenant."""
        keys: list[tuple[str, Hashable]] = []
        if self.shared:
            keys.append(("block", self.blocks[self.shared - 1]))
        if self.tenant:
            keys.append(("tenant", self.tenant))
        return keys

    @property
    def known_as(self) -> list[tuple[str, Hashable]]:
        """What its output says something about: prompts that part where it did, or that go on where it ends."""
        return [*self.like, *(("block", block) for block in self.blocks[-2:])]

    def paced(self, now: float, decode: Instance, *, held: bool) -> tuple[float, float] | None:
        """A token came: the context of its batch and the seconds of a step, now and then, when there is enough of both.

        ``held``: when it came says nothing, so that the measure begins anew.
        """
        since, count = self.paced_since, self.output - self.paced_output
        if since is not None and not held:
            if count < PACE_TOKENS or now - decode.paced < PACE_SECONDS:
                return None
            found = (self.paced_tokens + decode.tokens) / 2, (now - since) / count
            decode.paced = now
        else:
            found = None
        self.paced_since, self.paced_output, self.paced_tokens = now, self.output, decode.tokens
        return found


@dataclass(slots=True, eq=False)
class Instance:
    """A prefill, decode or store instance. ``number`` is its bit in masks."""

    name: str
    kind: Kind
    number: int
    draining: bool = False
    used: int = 0
    """The placement that it got last, counted over all instances: of equals, the one that waited longest is next."""
    queue: dict[RequestId, Tracked] = field(default_factory=dict)
    """Prefill: what it was given, in order; the first is being computed."""
    work: float = 0.0
    """Prefill: seconds of all in the queue."""
    since: float = 0.0
    """Prefill: when the first in the queue was begun, or can be."""
    head: float = 0.0
    """Prefill: seconds of the first in the queue."""
    sending: float = 0.0
    """When what it sends to others will be sent."""
    coming: dict[RequestId, Tracked] = field(default_factory=dict)
    """Decode: placed, and not computed yet."""
    running: dict[RequestId, Tracked] = field(default_factory=dict)
    """Decode: computed: its batch, and what waits for room in it."""
    tokens: int = 0
    """Decode: context of those."""
    coming_tokens: int = 0
    """Decode: prompts of what is coming."""
    expected: float = 0.0
    """Decode: output that is expected of those that are computed."""
    paced: float = -math.inf
    """Decode: when the pace of its tokens was measured last."""
    ejection: Ejection = field(default_factory=Ejection)
    """Whether it is passed over for what it failed."""

    def wait(self, now: float) -> float:
        """Seconds until its queue is empty: those of all in it, less what the first has had."""
        if not self.queue:
            return 0.0
        return self.work - min(self.head, now - self.since)

    def enqueue(self, tracked: Tracked, now: float) -> None:
        """Give it a prompt to compute."""
        if not self.queue:
            self.since, self.head = max(now, tracked.begins), tracked.work
            self.work = 0.0
        self.queue[tracked.request] = tracked
        self.work += tracked.work

    def dequeue(self, tracked: Tracked, now: float) -> float | None:
        """A prompt is computed, or given up: the seconds that it took, if it was the one that was computed."""
        first = next(iter(self.queue), None) == tracked.request
        del self.queue[tracked.request]
        self.work -= tracked.work
        if not first:
            return None
        took = now - self.since
        following = next(iter(self.queue.values()), None)
        if following is not None:
            self.since, self.head = max(now, following.begins), following.work
        return took

    def assign(self, tracked: Tracked) -> None:
        """Decode will be here."""
        tracked.decode = self
        self.coming[tracked.request] = tracked
        self.coming_tokens += tracked.length

    def take(self, tracked: Tracked) -> None:
        """It is computed, and decode has it."""
        if self.coming.pop(tracked.request, None) is not None:
            self.coming_tokens -= tracked.length
            self.running[tracked.request] = tracked
            self.tokens += tracked.context
            self.expected += tracked.expected

    def leave(self, tracked: Tracked) -> None:
        """It is neither coming nor here."""
        if self.coming.pop(tracked.request, None) is not None:
            self.coming_tokens -= tracked.length
        elif self.running.pop(tracked.request, None) is not None:
            self.tokens -= tracked.context
            self.expected = self.expected - tracked.expected if self.running else 0.0
        tracked.decode = None


def tbt(cost: DecodeCost, others: float, mean_output: float, length: int) -> float:
    """The longest gap that a request would have between its tokens beside others that have so many, seconds.

    Each gap is a step of the batch. Where its prompt does not fit, one gap is also the time until so much is free: a
    batch whose requests put out ``mean_output`` on average ends a like part of itself with each step.
    """
    over = others + length - cost.room
    step = cost.seconds(min(others + length, cost.room))
    there = min(others, cost.room)
    if over <= 0 or not there:
        return step
    freed = there / max(1.0, mean_output) / step  # tokens a second
    return step + over / freed
