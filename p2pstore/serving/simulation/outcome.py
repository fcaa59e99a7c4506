"""What is simulated, and what came out. Times in seconds, lengths in tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from p2pstore.bench.bound import percentile
from p2pstore.serving.events import Reason
from p2pstore.serving.policy import PolicySettings


@dataclass(frozen=True)
class Scenario:
    """So many prefill and decode instances, and a trace that is played ``speed`` times as fast as it was recorded."""

    settings: PolicySettings = field(default_factory=PolicySettings)
    prefill: int = 8
    decode: int = 8
    speed: float = 1.0

    def __post_init__(self) -> None:
        if self.prefill < 1 or self.decode < 1:
            there = f"{self.prefill} and {self.decode}"
            raise ValueError(f"at least one prefill and one decode instance are needed, and there are {there}")
        if not 0 < self.speed < float("inf"):
            raise ValueError(f"a speed must be greater than 0, and this is {self.speed:g}")


@dataclass(frozen=True, slots=True)
class Load:
    """One moment: seconds of prefill that wait for each instance, and the seconds of a decode step; means over them."""

    time: float
    queue: float
    step: float
    rejected: int


@dataclass
class Outcome:
    """What a trace came to under one policy.

    ``prefill_seconds`` is the work of all prefill instances; ``wasted_seconds`` is that part of it whose request was
    refused afterwards, ``missed_seconds`` that whose request was served, and not within the objectives.
    """

    scenario: Scenario
    requests: int = 0
    ttft: list[float] = field(default_factory=list)
    tbt: list[float] = field(default_factory=list)
    good: int = 0
    rejected: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    rejected_computed: int = 0
    blocks: int = 0
    reused: int = 0
    prefill_seconds: float = 0.0
    wasted_seconds: float = 0.0
    missed_seconds: float = 0.0
    fetched: int = 0
    """Blocks that went from one instance to another."""
    replicas: int = 0
    span: float = 0.0
    """From the first arrival to the last."""
    seconds: float = 0.0
    """Until the last token."""
    loads: list[Load] = field(default_factory=list)
    events: int = 0

    @property
    def goodput(self) -> float:
        """Requests a second that were served within the objectives, over the time in which they arrived."""
        return self.good / self.span if self.span else float(self.good)

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        settings = self.scenario.settings
        return {
            "policy": settings.placement.value,
            "admission": settings.admission.value,
            "speed": self.scenario.speed,
            "prefill": self.scenario.prefill,
            "decode": self.scenario.decode,
            "requests": self.requests,
            "finished": len(self.ttft),
            "good": self.good,
            "goodput": round(self.goodput, 4),
            "rejected": sum(self.rejected.values()),
            "rejected_for": {reason.value: count for reason, count in self.rejected.items()},
            "rejected_computed": self.rejected_computed,
            "ttft": spread(self.ttft),
            "tbt": spread(self.tbt),
            "hit_rate": round(self.reused / self.blocks, 4) if self.blocks else 0.0,
            "prefill_seconds": round(self.prefill_seconds, 3),
            "wasted_seconds": round(self.wasted_seconds, 3),
            "missed_seconds": round(self.missed_seconds, 3),
            "fetched_blocks": self.fetched,
            "replicas": self.replicas,
            "span": round(self.span, 3),
            "seconds": round(self.seconds, 3),
            "events": self.events,
            "load": [[round(v, 6) for v in (at.time, at.queue, at.step, at.rejected)] for at in self.loads],
        }


def spread(values: list[float]) -> dict[str, float]:
    """Mean and percentiles; all 0 where there are no values."""
    if not values:
        return {"mean": 0.0, "p50": 0.0, "p90": 0.0, "p99": 0.0}
    found = {"mean": sum(values) / len(values)}
    found |= {f"p{part}": percentile(values, part / 100) for part in (50, 90, 99)}
    return {name: round(value, 6) for name, value in found.items()}
