"""A policy in a test: six instances, and what becomes of the requests that it is told of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from p2pstore.serving.events import (
    Arrive,
    Decision,
    Event,
    Finish,
    InstanceDown,
    InstanceDraining,
    InstanceUp,
    Kind,
    Lost,
    Place,
    Reject,
    RequestId,
)
from p2pstore.serving.policy import Policy, PolicySettings

PREFILLS, DECODES = ("p0", "p1", "p2"), ("d0", "d1", "d2")
KINDS = {**dict.fromkeys(PREFILLS, Kind.PREFILL), **dict.fromkeys(DECODES, Kind.DECODE)}
ALL_UP = [(InstanceUp(name, kind), 0.0) for name, kind in KINDS.items()]


class Story:
    """Feeds a policy, and knows who is there and which requests are under way."""

    def __init__(self, settings_: PolicySettings) -> None:
        self.policy = Policy(settings_)
        self.open: set[str] = set()
        self.here: set[str] = set()
        self.under_way: set[RequestId] = set()
        self.now = 0.0

    def tell(self, event: Event, passed: float = 0.0) -> list[Decision]:
        """``Arrive`` of one that is under way is left out: its owner has no two of one name."""
        self.now += passed
        if isinstance(event, Arrive) and event.request in self.under_way:
            return []
        if isinstance(event, InstanceUp):
            self.open.add(event.name)
            self.here.add(event.name)
        elif isinstance(event, InstanceDown):
            self.open.discard(event.name)
            self.here.discard(event.name)
        elif isinstance(event, InstanceDraining):
            self.open.discard(event.name)
        elif isinstance(event, Finish):
            self.under_way.discard(event.request)
        decisions = self.policy.handle(event, self.now)
        for decision in decisions:
            if isinstance(decision, Place):
                self.under_way.add(decision.request)
            elif isinstance(decision, Reject | Lost):
                self.under_way.discard(decision.request)
        return decisions

    def run(self, steps: list[tuple[Event, float]]) -> Iterator[tuple[Event, list[Decision]]]:
        for event, passed in [*ALL_UP, *steps]:
            yield event, self.tell(event, passed)


def started(**settings_: object) -> Story:
    story = Story(replace(PolicySettings(), **settings_))
    list(story.run([]))
    return story
