"""What nodes of a simulation say to one another: each message is heard after the delay that lies between them.

Where the scenario counts processors, hearing one takes them time, and so does waking up for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2pstore.bench.scenario import Outcome, Scenario
from p2pstore.bench.simulated_node import SimulatedNode
from p2pstore.bench.simulated_processors import Processors
from p2pstore.bench.virtual_clock import VirtualClock


class Messages:
    """All messages of one simulation. ``outcome`` counts them, and the wakes."""

    def __init__(self, clock: VirtualClock, scenario: Scenario, outcome: Outcome) -> None:
        self._clock = clock
        self._outcome = outcome
        self._costs = scenario.costs
        self._near, self._far = scenario.latency, scenario.latency + scenario.zone_latency
        self.processors = Processors(scenario.processors) if scenario.processors else None

    def delay(self, one: SimulatedNode, other: SimulatedNode) -> float:
        """Seconds that a message is on its way."""
        return self._near if one.zone == other.zone else self._far

    def say(self, one: SimulatedNode, other: SimulatedNode, act: Callable[..., None], *arguments: Any) -> None:
        """Call ``act`` when what one node says to another was heard."""
        self._outcome.messages += 1
        delay = self._near if one.zone == other.zone else self._far
        if self.processors is None:
            self._clock.after(delay, act, *arguments)
        else:
            self._clock.after(delay, self.work, other, self._costs.message_seconds, act, arguments)

    def say_to_all(
        self, one: SimulatedNode, delay: float, others: list[SimulatedNode], act: Callable[..., None], *arguments: Any
    ) -> None:
        """As ``say``, of the same to all that are so far away: ``act`` gets the node, and a list of those who heard."""
        if self.processors is not None:
            for other in others:
                self.say(one, other, act, one, [other], *arguments)
        else:
            self._outcome.messages += len(others)
            self._clock.after(delay, act, one, others, *arguments)

    def work(self, node: SimulatedNode, seconds: float, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Call ``act`` once the processors have had so many seconds for what a node has heard."""
        assert self.processors is not None  # noqa: S101 - else there is nothing to wait for
        now = self._clock.now
        if node.busy_until <= now:
            self._outcome.wakes += 1
            seconds += self._costs.wake_seconds
        node.busy_until = self.processors.take(now, seconds)
        self._clock.at(node.busy_until, act, *arguments)
