"""Links of a simulated network that flows share. Pure; the time is whatever the caller says.

A flow crosses several links (its sender's uplink, its receiver's downlink, those of zones) and has one rate on all of
them. The model is a fluid one: a flow that starts gets the fair share of its narrowest link, for which the flows that
have more than that give way; what a flow gives up, or leaves behind, the others on its links take as far as their other
links allow. So no link carries more than it can, and none that somebody could use stays idle, which is what many TCP
connections settle on. It differs from exact max-min fairness in that shares are levelled only when a flow starts, and
not over the whole network: that would cost as much at each event as there are flows. There are no headers, no loss and
no slow start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from operator import attrgetter

WORTHWHILE = 0.01
"""Part of a link's capacity below which nobody is told that it is free: it costs an event a flow."""

_by_rate = attrgetter("rate")


class SimulatedLink:
    """One direction of a network card or of a zone's connection. ``capacity`` and ``spare`` in bytes a second."""

    __slots__ = ("capacity", "flows", "spare")

    def __init__(self, capacity: float) -> None:
        if not capacity > 0:
            raise ValueError(f"a link that carries nothing: {capacity}")
        self.capacity = capacity
        self.spare = capacity
        self.flows: list[Flow] = []

    def offer(self) -> float:
        """What one more flow gets here: what is free, or a fair share if that is more."""
        left, count = self.capacity, len(self.flows) + 1
        for flow in sorted(self.flows, key=_by_rate):
            if flow.rate * count > left:
                break
            left -= flow.rate
            count -= 1
        return left / count


class Flow:
    """Some bytes on their way. ``due`` is the time at which ``Links.check`` is to be called."""

    __slots__ = ("due", "item", "left", "links", "rate", "since")

    def __init__(self, size: float, links: tuple[SimulatedLink, ...], item: object) -> None:
        self.left = size
        self.links = links
        self.item = item
        self.rate = 0.0
        self.since = 0.0
        self.due = inf


class Links:
    """The flows that are under way. ``wake`` is called with a flow and the time at which to ``check`` it."""

    def __init__(self, wake: Callable[[float, Flow], None]) -> None:
        self._wake = wake

    def start(self, flow: Flow, now: float) -> None:
        """Let a flow begin."""
        rate = min([link.offer() if link.flows else link.capacity for link in flow.links])
        freed: list[SimulatedLink] = []
        for link in flow.links:
            if link.spare < rate:
                self._cut(link, rate, now, freed)
            link.spare -= rate
            link.flows.append(flow)
        flow.since = now
        self._set(flow, rate, now)
        self._grow(freed, now)

    def stop(self, flow: Flow, now: float) -> None:
        """Take a flow off its links, whether it is through or not."""
        for link in flow.links:
            link.flows.remove(flow)
            link.spare = link.spare + flow.rate if link.flows else link.capacity
        flow.due = inf
        self._grow(flow.links, now)

    def check(self, flow: Flow, now: float) -> bool:
        """Whether a flow that is due is through; if not, it is due again later, because it was slowed meanwhile."""
        flow.left -= flow.rate * (now - flow.since)
        flow.since = now
        # What a picosecond's rounding leaves is nothing.
        if flow.left <= flow.rate * 1e-9:
            return True
        flow.due = now + flow.left / flow.rate
        self._wake(flow.due, flow)
        return False

    def _cut(self, link: SimulatedLink, rate: float, now: float, freed: list[SimulatedLink]) -> None:
        """Make room for ``rate``: the fastest give way, down to a common level. What that frees elsewhere is noted."""
        left, count = link.capacity - rate, len(link.flows)
        flows = sorted(link.flows, key=_by_rate)
        while count and flows[-count].rate * count <= left:
            left -= flows[-count].rate
            count -= 1
        if not count:
            return
        level = left / count
        for flow in flows[-count:]:
            given = flow.rate - level
            for other in flow.links:
                other.spare += given
                if other is not link:
                    freed.append(other)
            self._set(flow, level, now)

    def _grow(self, links: Iterable[SimulatedLink], now: float) -> None:
        """Let the flows on these links take what is free, in equal parts as far as their other links allow."""
        for link in links:
            worthwhile = link.capacity * WORTHWHILE
            flows = link.flows
            if link.spare < worthwhile or not flows:
                continue
            count = len(flows)
            for flow in sorted(flows, key=_by_rate) if count > 1 else flows:
                if link.spare < worthwhile:
                    break
                more = link.spare / count
                count -= 1
                if more < worthwhile:
                    continue
                for other in flow.links:
                    if other.spare < more:
                        more = other.spare
                        if more < worthwhile:
                            break
                else:
                    for other in flow.links:
                        other.spare -= more
                    self._set(flow, flow.rate + more, now)

    def _set(self, flow: Flow, rate: float, now: float) -> None:
        flow.left -= flow.rate * (now - flow.since)
        flow.since = now
        flow.rate = rate
        due = now + flow.left / rate
        # One that was slowed is found out when it is due: most are sped up again before.
        if due < flow.due:
            flow.due = due
            self._wake(due, flow)
