"""What is broadcast to whom, and what came out. Plain records; see ``p2pstore.bench.broadcast``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pstore.bench.bound import Nearness, bound_of_links, nearness
from p2pstore.errors import UsageError

MAX_RECEIVERS = 256
"""Each is a process of some 60 MB."""


@dataclass(frozen=True)
class BroadcastPlan:
    """What to do. ``rate`` in bytes a second, 0 for loopback without a limit; ``slow`` gives receivers another one.

    The seed is killed when it has sent ``kill_seed_after`` times the object; receiver ``restarted`` each ``restart``
    seconds until it has everything or all others have. ``directory`` is where copies lie; with a ``rate`` it is in
    memory unless another is given, because what is measured then is the network. ``modules`` replaces the agent's
    module, by node number (0 is the seed); it is there for tests.
    """

    receivers: int
    size: int = 256 << 20
    rate: float = 0.0
    chunk_size: int | None = None
    slow: Mapping[int, float] = field(default_factory=dict)
    kill_seed_after: float = 0.0
    restart: float = 0.0
    restarted: int = 1
    transport: str = "tcp"
    directory: Path | None = None
    modules: Mapping[int, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raises ``UsageError`` for a plan that cannot be carried out."""
        if not 1 <= self.receivers <= MAX_RECEIVERS:
            raise UsageError(detail=f"between 1 and {MAX_RECEIVERS} receivers, not {self.receivers}")
        if self.size < 1:
            raise UsageError(detail="an object has at least one byte")
        if self.slow and not self.rate:
            raise UsageError(detail="a slow receiver needs --rate: without it there are no limited network cards")
        for number in (*self.slow, *((self.restarted,) if self.restart else ())):
            if not 1 <= number <= self.receivers:
                raise UsageError(detail=f"there is no receiver {number}; they are numbered 1 to {self.receivers}")
        if self.kill_seed_after and self.transport != "tcp":
            raise UsageError(detail="what the seed sent is counted over TCP only")


@dataclass
class Received:
    """How one receiver fared: ``seconds`` from the beginning, ``peers`` maps nodes to the bytes that each sent it.

    ``progress`` are pairs of seconds and bytes. ``error`` is empty when it got everything.
    """

    node: str
    seconds: float = 0.0
    peers: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    progress: list[tuple[float, int]] = field(default_factory=list)
    restarts: int = 0
    equal: bool = False
    error: str = ""


@dataclass
class Broadcast:
    """What came out. Sizes in bytes, times in seconds.

    ``busy``: the part of all processors' time that was used while the object was on its way, by whomever, 0 to 1.
    ``processor_seconds``: of the agents meanwhile.
    """

    plan: BroadcastPlan
    chunks: int = 0
    seed_bytes: int = 0
    seed_killed: bool = False
    receivers: list[Received] = field(default_factory=list)
    busy: float | None = None
    processor_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everybody has it, and it is the same."""
        return all(r.equal and not r.error for r in self.receivers)

    @property
    def last(self) -> float:
        """When the last receiver had it."""
        return max(r.seconds for r in self.receivers)

    @property
    def nearness(self) -> Nearness | None:
        """How near it came to the least time that it could have taken; None without limited network cards."""
        plan = self.plan
        if not plan.rate:
            return None
        rates = [plan.slow.get(number, plan.rate) for number in range(1, plan.receivers + 1)]
        least = bound_of_links(plan.size, plan.rate, rates, rates) if plan.slow else 0.0
        return nearness(self.last, plan.size, plan.rate, plan.receivers, self.chunks, least)

    @property
    def processor_seconds_per_gb(self) -> float:
        """Seconds of the agents' processors for each GB that somebody received."""
        return self.processor_seconds / (self.plan.size * self.plan.receivers / 1e9)

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        plan, near = self.plan, self.nearness
        return {
            "receivers": plan.receivers,
            "size": plan.size,
            "chunks": self.chunks,
            "rate": plan.rate or None,
            "ok": self.ok,
            "last": round(self.last, 6),
            **(dict.fromkeys(("over_copy", "c", "bound", "percent_of_bound")) if near is None else near.to_json()),
            "busy": None if self.busy is None else round(self.busy, 3),
            "processor_seconds_per_gb": round(self.processor_seconds_per_gb, 3),
            "seed_bytes": self.seed_bytes,
            "seed_ratio": round(self.seed_bytes / plan.size, 4),
            "seed_killed": self.seed_killed,
            "nodes": [
                {
                    "node": r.node,
                    "seconds": round(r.seconds, 6),
                    "peers": r.peers,
                    "restarts": r.restarts,
                    "equal": r.equal,
                    "error": r.error,
                    "notes": r.notes,
                    "progress": [[round(at, 3), done] for at, done in r.progress],
                }
                for r in self.receivers
            ],
        }
