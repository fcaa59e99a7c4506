"""The instances that the policy knows, and which of them take requests. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from p2pstore.serving.events import Kind
from p2pstore.serving.instances import Instance
from p2pstore.serving.prefixes import members


class Roster:
    """Those that are there, by name."""

    def __init__(self) -> None:
        self.every: list[Instance] = []
        self.members = 0
        """All that are there, and their mask."""
        self._named: dict[str, Instance] = {}
        self._open: dict[Kind, list[Instance]] = {kind: [] for kind in Kind}
        """Those of each kind that take requests: none that is draining, and none that is ejected unless all are."""
        self._returns = math.inf
        """When the next of those that are ejected is asked again."""

    def find(self, name: str) -> Instance | None:
        """The one of that name."""
        return self._named.get(name)

    def open(self, kind: Kind, avoid: frozenset[str], now: float) -> list[Instance]:
        """Those of a kind that take a request. Those in ``avoid`` failed it: they do where there is no other."""
        if now >= self._returns:
            self.look(now)
        found = self._open[kind]
        return [one for one in found if one.name not in avoid] or found if avoid else found

    def add(self, name: str, kind: Kind, now: float) -> None:
        """One more."""
        taken = {one.number for one in self.every}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        self._named[name] = Instance(name, kind, number)
        self.look(now)

    def drain(self, instance: Instance, now: float, *, draining: bool) -> None:
        """One takes no more requests, or takes them again."""
        instance.draining = draining
        self.look(now)

    def remove(self, name: str, now: float) -> Instance | None:
        """One less."""
        instance = self._named.pop(name, None)
        if instance is not None:
            self.look(now)
        return instance

    def look(self, now: float) -> None:
        """See anew who takes requests."""
        self.every = list(self._named.values())
        self.members = members(one.number for one in self.every)
        for kind in Kind:
            there = [one for one in self.every if one.kind is kind and not one.draining]
            self._open[kind] = [one for one in there if one.ejection.until <= now] or there
        self._returns = min((one.ejection.until for one in self.every if one.ejection.until > now), default=math.inf)


def least_used(instances: Sequence[Instance]) -> Instance:
    """The one that waited longest for a request."""
    return min(instances, key=lambda one: one.used)


def lightest(instances: Sequence[Instance]) -> Instance:
    """The one with the fewest tokens of context; of equals, the one that waited longest."""
    found = instances[0]
    least = found.tokens + found.coming_tokens
    for instance in instances:
        tokens = instance.tokens + instance.coming_tokens
        if tokens < least or (tokens == least and instance.used < found.used):
            found, least = instance, tokens
    return found
