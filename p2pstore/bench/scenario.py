"""What is simulated, and what came out. Sizes in bytes, rates in bytes a second, times in seconds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.serving.upload_slots import SLOTS
from p2pstore.bench.bound import Nearness, bound_of_links, nearness, percentile
from p2pstore.bench.simulated_processors import FREE, Costs
from p2pstore.objects.manifest import choose_chunk_size


@dataclass(frozen=True)
class Scenario:
    """One seed, which has the object, and receivers that get it. ``chunk_size`` 0 is what a register takes.

    ``rate`` is every node's link, each way; ``slow_rate`` that of ``slow`` of the receivers. ``latency`` is one way,
    within a zone; between zones ``zone_latency`` comes on top. Nodes are dealt to ``zones`` in turn; ``zone_rate`` is
    each zone's link to the others, each way, 0 for one that is never full.

    ``sources`` is how many peers a receiver gets from besides the seed, ``slots`` how many sends a node has under way
    at once.

    Receivers come evenly spread over ``arrivals``. ``deaths`` of them die, at random times before S/B is over; the seed
    dies when it has sent ``seed_dies_after`` times the object. A death is noticed after ``notice``. ``seed`` makes the
    run repeatable.

    With ``processors`` all nodes are on one machine that has so many, bytes and messages take them what ``costs``
    says, and packets have headers, as in ``bench broadcast``. With 0 nothing takes any time, and there are no headers.
    """

    receivers: int
    size: int = 140_000_000_000
    chunk_size: int = 0
    rate: float = 1.25e9
    latency: float = 0.0002
    zones: int = 1
    zone_rate: float = 0.0
    zone_latency: float = 0.002
    sources: int = 16
    slots: int = SLOTS
    slow: int = 0
    slow_rate: float = 0.0
    arrivals: float = 0.0
    deaths: int = 0
    notice: float = 1.0
    seed_dies_after: float = 0.0
    seed: int = 0
    processors: int = 0
    costs: Costs = FREE

    def __post_init__(self) -> None:
        if not self.chunk_size:
            object.__setattr__(self, "chunk_size", choose_chunk_size(self.size))
        if self.size < 1:
            raise ValueError("nothing is to be sent: the object's size is 0")
        whole = (self.receivers, self.chunk_size, self.zones, self.sources, self.slots)
        if min(whole) < 1 or not self.rate > 0:
            raise ValueError("a scenario has at least one receiver, zone, source and slot, and a rate")
        times = (self.latency, self.zone_latency, self.arrivals, self.notice, self.seed_dies_after)
        if not all(0 <= each < math.inf for each in times):
            raise ValueError("times, and what the seed sends before it dies, are numbers from 0 up")
        if self.processors < 0:
            raise ValueError("no machine has fewer processors than none")
        if not 0 <= self.slow <= self.receivers:
            raise ValueError(f"no more than all {self.receivers} receivers can be slow, not {self.slow}")
        if self.slow and not self.slow_rate > 0:
            raise ValueError("slow receivers have a rate")
        if not 0 <= self.deaths <= self.receivers:
            raise ValueError("no more can die than there are")

    @property
    def chunks(self) -> int:
        """How many chunks the object has."""
        return -(-self.size // self.chunk_size)

    @property
    def bound_of_links(self) -> float:
        """The least time (seconds) for links that are not equal, whatever the size of chunks; 0.0 where all are equal.

        Nobody is late, and nobody dies. What a zone's link brings in, it brings once at least.
        """
        zones = min(self.zones, self.receivers)
        if not self.slow and not (self.zone_rate and zones > 1):
            return 0.0
        rates = [self.slow_rate] * self.slow + [self.rate] * (self.receivers - self.slow)
        crossing = self.size / self.zone_rate if self.zone_rate and zones > 1 else 0.0
        return max(crossing, bound_of_links(self.size, self.rate, rates, rates))

    def nearness(self, seconds: float) -> Nearness:
        """How near a run whose last receiver was through after so many seconds came to what is possible."""
        return nearness(seconds, self.size, self.rate, self.receivers, self.chunks, self.bound_of_links)


@dataclass(frozen=True)
class Sample:
    """How far the living receivers were at one moment: parts of the object, 0 to 1, and of the seed's first pass."""

    time: float
    least: float
    mean: float
    most: float


@dataclass
class Outcome:
    """What a simulated broadcast came to.

    ``seconds`` are from each receiver's arrival until it had everything, ``last`` is from the beginning until the last
    living one had; ``connections`` counts, for each receiver, the peers that it got from or that followed it.
    ``messages`` were said by one node to another; requests for bytes, and answers to them, are not counted.
    ``crossed_in`` and ``crossed_out`` are the bytes that came into each zone from others, and that left it for others.
    ``wakes`` is how often a node that had nothing to do heard something; counted where processors take time.
    """

    scenario: Scenario
    seconds: list[float] = field(default_factory=list)
    last: float = 0.0
    unfinished: int = 0
    died: int = 0
    seed_bytes: float = 0.0
    sent_bytes: float = 0.0
    crossed_in: dict[int, float] = field(default_factory=dict)
    crossed_out: dict[int, float] = field(default_factory=dict)
    connections: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    events: int = 0
    messages: int = 0
    wakes: int = 0
    processor_seconds: float = 0.0

    @property
    def busy(self) -> float | None:
        """The part of the processors' time (0 to 1) that was used; None where nothing takes any."""
        if not self.scenario.processors or not self.last:
            return None
        return min(1.0, self.processor_seconds / (self.scenario.processors * self.last))

    @property
    def nearness(self) -> Nearness:
        """How near it came to what is possible."""
        return self.scenario.nearness(self.last)

    @property
    def seed_ratio(self) -> float:
        """What the seed sent, over the object's size."""
        return self.seed_bytes / self.scenario.size

    def crossed_ratio(self, crossed: dict[int, float]) -> float:
        """The most that a zone's link carried, one way, over the object's size."""
        return round(max(crossed.values(), default=0.0) / self.scenario.size, 4)

    def to_json(self) -> dict[str, Any]:
        """As a document. ``crossed`` is what the busiest link of a zone carried, in and out, times the object."""
        seconds = self.seconds or [0.0]
        connections = self.connections or [0]
        return {
            "receivers": self.scenario.receivers,
            "size": self.scenario.size,
            "chunk_size": self.scenario.chunk_size,
            "chunks": self.scenario.chunks,
            "finished": len(self.seconds),
            "unfinished": self.unfinished,
            "died": self.died,
            "p50": round(percentile(seconds, 0.5), 6),
            "p99": round(percentile(seconds, 0.99), 6),
            "last": round(self.last, 6),
            **self.nearness.to_json(),
            "seed_ratio": round(self.seed_ratio, 4),
            "sent_bytes": round(self.sent_bytes),
            "crossed": [self.crossed_ratio(self.crossed_in), self.crossed_ratio(self.crossed_out)],
            "connections": {"mean": round(sum(connections) / len(connections), 2), "most": max(connections)},
            "events": self.events,
            "messages": self.messages,
            "wakes": self.wakes,
            "busy": None if self.busy is None else round(self.busy, 3),
            "costs": asdict(self.scenario.costs) if self.scenario.processors else None,
            "progress": [[round(v, 6) for v in (s.time, s.least, s.mean, s.most)] for s in self.samples],
        }
