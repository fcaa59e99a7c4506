"""On which prefill instance a prompt is computed: one function for each way to choose. Pure.

Each is given what a prompt costs on each instance, and says which it takes. ``kvcache-centric`` is algorithm 1 of the
Mooncake paper (FAST'25), but for one thing: a prefix is fetched only where that is sooner than to compute it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from p2pstore.serving.instances import Instance
from p2pstore.serving.prefixes import Match

WORTH_FETCHING = 1.2
"""A longer prefix is fetched when it is so many times as long as the one that the instance has."""


class Placement(Enum):
    """The ways to choose an instance."""

    RANDOM = "random"
    ROUND_ROBIN = "round-robin"
    LEAST_LOAD = "least-load"

    PREFIX_LOCAL = "prefix-local"
    """The least time with the prefix that the instance has itself."""

    KVCACHE_CENTRIC = "kvcache-centric"
    """The least time, with the best prefix of all fetched where that is worth it."""


@dataclass(slots=True)
class Option:
    """One instance for a prompt. Times in seconds from now; lengths in tokens."""

    instance: Instance
    wait: float
    reused: int
    work: float
    source: Instance | None = None
    fetch: float = 0.0
    """Until the blocks from ``source`` are there."""

    @property
    def ttft(self) -> float:
        """Until the first token."""
        return max(self.wait, self.fetch) + self.work


@dataclass(slots=True)
class Prompt:
    """What there is to place: tokens of the prompt and of one block, and who has how much of it."""

    length: int
    block: int
    match: Match
    now: float
    seconds: Callable[[int, int], float]
    """Of a prefill, by length and reused tokens."""
    token: float
    """Seconds that the KV cache of one token takes from one instance to another."""

    def tokens(self, blocks: int) -> int:
        """What so many blocks spare; one token at least is always computed."""
        return max(0, min(blocks * self.block, self.length - 1))

    def local(self, instance: Instance) -> Option:
        """With what the instance has."""
        reused = self.tokens(self.match.lengths.get(instance.number, 0))
        return Option(instance, instance.wait(self.now), reused, self.seconds(self.length, reused))


class Placer:
    """Chooses by one ``Placement``."""

    def __init__(self, placement: Placement, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable is what it must be
        self._choose = {
            Placement.RANDOM: self._at_random,
            Placement.ROUND_ROBIN: self._in_turn,
            Placement.LEAST_LOAD: self._least_load,
            Placement.PREFIX_LOCAL: self._prefix_local,
            Placement.KVCACHE_CENTRIC: self._kvcache_centric,
        }[placement]

    def choose(self, prompt: Prompt, instances: Sequence[Instance], every: Sequence[Instance]) -> Option:
        """One of ``instances``, which must not be empty. ``every``: all that may have blocks, by number."""
        return self._choose(prompt, instances, every)

    def _at_random(self, prompt: Prompt, instances: Sequence[Instance], _: Sequence[Instance]) -> Option:
        return prompt.local(self._random.choice(instances))

    def _in_turn(self, prompt: Prompt, instances: Sequence[Instance], _: Sequence[Instance]) -> Option:
        return prompt.local(min(instances, key=lambda one: one.used))

    def _least_load(self, prompt: Prompt, instances: Sequence[Instance], _: Sequence[Instance]) -> Option:
        return prompt.local(min(instances, key=lambda one: (one.wait(prompt.now), one.used)))

    def _prefix_local(self, prompt: Prompt, instances: Sequence[Instance], _: Sequence[Instance]) -> Option:
        return _soonest(prompt, instances, None)

    def _kvcache_centric(self, prompt: Prompt, instances: Sequence[Instance], every: Sequence[Instance]) -> Option:
        match = prompt.match
        return _soonest(prompt, instances, _first_to_send(match, every) if match.best else None)


def _first_to_send(match: Match, every: Sequence[Instance]) -> Instance | None:
    """Of those that hold the best prefix, the one that has sent soonest what it sends."""
    found: Instance | None = None
    for one in every:
        if match.holds(one.number) and (
            found is None or one.sending < found.sending or (one.sending == found.sending and one.used < found.used)
        ):
            found = one
    return found


def _soonest(prompt: Prompt, instances: Sequence[Instance], source: Instance | None) -> Option:
    """Where the first token is there soonest; from ``source`` the best prefix can be fetched."""
    now, length, match, seconds = prompt.now, prompt.length, prompt.match, prompt.seconds
    best = prompt.tokens(match.best)
    whole, cold = seconds(length, best), seconds(length, 0)
    queued = 0.0 if source is None else max(0.0, source.sending - now)
    chosen: Option | None = None
    soonest = math.inf
    for instance in instances:
        wait = instance.wait(now)
        if wait > soonest:
            continue
        blocks = match.lengths.get(instance.number, 0)
        reused = prompt.tokens(blocks) if blocks else 0
        work, fetch, begin, fetched = seconds(length, reused) if reused else cold, 0.0, wait, False
        if source is not None and best > reused * WORTH_FETCHING and not match.holds(instance.number):
            fetch = queued + (best - reused) * prompt.token
            if max(wait, fetch) + whole < wait + work:
                begin, reused, work, fetched = max(wait, fetch), best, whole, True
        ttft = begin + work
        if ttft < soonest or (chosen is not None and ttft == soonest and instance.used < chosen.instance.used):
            soonest = ttft
            chosen = Option(instance, wait, reused, work, source if fetched else None, fetch if fetched else 0.0)
    assert chosen is not None  # noqa: S101 - there is one instance at least
    return chosen
