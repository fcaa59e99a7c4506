"""Statistics of a bench: latencies as a histogram, and bandwidths as medians over rounds. Pure.

A bandwidth is in decimal GB/s, as upstream's benches give it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

PRECISION_BITS = 10
"""Significant bits of a latency in the histogram: it is at most 0.1 % too low there."""


class Latencies:
    """A histogram of durations in nanoseconds, whose size does not grow with their number."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, durations: Iterable[int], weight: int = 1) -> None:
        """Count each of ``durations`` (nanoseconds) ``weight`` times."""
        for duration in durations:
            shift = max(0, duration.bit_length() - PRECISION_BITS)
            self._counts[duration >> shift << shift] += weight
            self._total += duration * weight

    def merge(self, other: Latencies) -> None:
        """Count what ``other`` counted too."""
        self._counts.update(other._counts)
        self._total += other._total

    @property
    def average(self) -> float:
        """Nanoseconds; exact. 0 without any."""
        count = len(self)
        return self._total / count if count else 0.0

    def percentile(self, percent: float) -> float:
        """Nanoseconds within which ``percent`` of them were over (the nearest rank). 0 without any."""
        count = len(self)
        wanted, seen = max(1, -(-count * percent // 100)), 0
        for value in sorted(self._counts):
            seen += self._counts[value]
            if seen >= wanted:
                return float(value)
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {"counts": sorted(self._counts.items()), "total": self._total}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Latencies:
        """What ``to_json`` made."""
        made = cls()
        made._counts.update(dict(map(tuple, data["counts"])))
        made._total = data["total"]
        return made


@dataclass(slots=True)
class Measurement:
    """What one engine, or the socket loop, did in one round of a case.

    ``cpu`` is the processor time (seconds) of the initiator's process, and of the target's where that is known.
    """

    seconds: float
    batches: int
    bytes: int
    latencies: Latencies = field(default_factory=Latencies)
    cpu: float = 0.0

    @property
    def gbps(self) -> float:
        """10**9 bytes a second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {
            "seconds": self.seconds,
            "batches": self.batches,
            "bytes": self.bytes,
            "latencies": self.latencies.to_json(),
            "cpu": self.cpu,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """What ``to_json`` made."""
        return cls(data["seconds"], data["batches"], data["bytes"], Latencies.from_json(data["latencies"]), data["cpu"])


def median_gbps(rounds: Iterable[Measurement]) -> float:
    """The median of their bandwidths; 0 without any."""
    found = [each.gbps for each in rounds]
    return statistics.median(found) if found else 0.0


def median_ratio(rounds: Iterable[Measurement], baseline: Iterable[Measurement]) -> float | None:
    """The median over the rounds of what each reached of the baseline's bandwidth in the same round.

    None without a baseline: what else runs on a machine changes from round to round, and little within one.
    """
    ratios = [ours.gbps / theirs.gbps for ours, theirs in zip(rounds, baseline, strict=False) if theirs.gbps]
    return statistics.median(ratios) if ratios else None


def cpu_per_gb(rounds: Iterable[Measurement]) -> float:
    """Seconds of processor time for 10**9 bytes, over all rounds; 0 where nothing was moved."""
    found = list(rounds)
    moved = sum(each.bytes for each in found)
    return sum(each.cpu for each in found) / moved * 1e9 if moved else 0.0


def merged(rounds: Iterable[Measurement]) -> Latencies:
    """The latencies of all rounds."""
    made = Latencies()
    for each in rounds:
        made.merge(each.latencies)
    return made
