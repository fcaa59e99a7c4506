"""What a node of a simulation tells those who follow it: chunks, grants, claims, and whether they share it.

As in the control plane, news of chunks goes along with each grant, and to all others a little later, gathered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from p2pstore.bench.simulated_messages import Messages
from p2pstore.bench.simulated_node import SimulatedNode
from p2pstore.bench.virtual_clock import VirtualClock
from p2pstore.swarm.events import Event, PeerClaims, PeerHas, PeerShared
from p2pstore.swarm.gateway import Claim
from p2pstore.swarm.granter import Grant

Deliver = Callable[[SimulatedNode, Sequence[SimulatedNode], Sequence[Event]], None]
"""Listeners of a node have heard these."""

HearGrant = Callable[[SimulatedNode, str, Grant, Sequence[range]], None]
"""A node has heard that another, of that name, grants it something, and with it of chunks."""


class News:
    """The news of all nodes of one simulation."""

    def __init__(self, clock: VirtualClock, messages: Messages, deliver: Deliver, hear_grant: HearGrant) -> None:
        self._clock = clock
        self._messages = messages
        self._deliver = deliver
        self._hear_grant = hear_grant

    def share(self, source: SimulatedNode, names: Sequence[str]) -> None:
        """Those who follow a node learn whether they share it."""
        for name in names:
            event = PeerShared(source.name, source.audience.shared(name))
            node = source.listeners[name]
            self._messages.say(source, node, self._deliver, source, [node], [event])
        self.grant(source)

    def grant(self, source: SimulatedNode) -> None:
        """Say what is granted now, and see to it that the granter hears of the time when that is due."""
        if not source.alive:
            return
        granter, now = source.audience.granter, self._clock.now
        for grant in granter.grants(now):
            node = source.listeners[grant.key]
            self._messages.say(source, node, self._hear_grant, node, source.name, grant, source.untold.take(grant.key))
        due = granter.due
        if due < source.grants_due:
            source.grants_due = due
            self._clock.at(due, self._pass_time, source)

    def _pass_time(self, source: SimulatedNode) -> None:
        if source.alive and source.grants_due == self._clock.now:
            source.grants_due = math.inf
            self.grant(source)

    def claim(self, node: SimulatedNode, claim: Claim) -> None:
        """Tell those who follow a node who it takes for a gateway of its zone."""
        node.claims[claim.share] = claim
        for listener in node.listeners.values():
            self._messages.say(node, listener, self._deliver, node, [listener], [PeerClaims(node.name, claim)])

    def gather(self, node: SimulatedNode, run: range) -> None:
        """A node has these chunks now: with grants it tells of them at once, all others a little later."""
        if not node.listeners:
            return
        node.untold.add(run)
        node.audience.granter.told()
        self.grant(node)
        if not node.gathering:
            node.gathering = True
            self._clock.at(self._clock.now + node.audience.granter.late, self._publish, node)

    def _publish(self, node: SimulatedNode) -> None:
        """Tell those who follow this node what they were not told of yet."""
        node.gathering = False
        there: dict[tuple[float, tuple[range, ...]], list[SimulatedNode]] = {}
        for name, listener in node.listeners.items():
            if news := node.untold.take(name):
                there.setdefault((self._messages.delay(node, listener), news), []).append(listener)
        for (delay, news), listeners in there.items():
            events = [PeerHas(node.name, [chunk for run in news for chunk in run])]
            self._messages.say_to_all(node, delay, listeners, self._deliver, events)
