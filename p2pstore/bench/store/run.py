"""Running a sweep over stores: masters, givers and workers of each engine, measured in turn within every round.

What else happens on a machine changes what everybody reaches. So a case is measured in several rounds, each of which
gives all of them the same time one after the other, in an order that changes; figures are medians over the rounds.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from engine.bench.process import ANSWER_TIMEOUT, Process
from engine.bench.statistics import Measurement, median_gbps, merged
from engine.errors import UsageError
from p2pstore.bench.store.cases import ROOM, Case
from p2pstore.bench.store.real_master import RealMaster

MODULE = "p2pstore.bench.store"

MIN_SEGMENT = 64 << 20
"""Bytes of the pool: small values must not meet eviction."""

MAX_SEGMENT = 16 << 30
"""Bytes of the pool; more would be a slip."""

FILL = 0.8
"""Of the pool that values may take: above 0.9 masters evict."""

MAX_SECONDS = 3600.0
"""Seconds of one case."""

MAX_ROUNDS = 100

SETTLED_SECONDS = 120.0
"""Beyond the time that is measured: what is put before, and removed after, takes its own."""


class Engine(Enum):
    """Whose master and clients are measured."""

    OURS = "ours"
    OURS_TCP = "ours-tcp"
    """Ours, where processes of one host do not hand one another their memory."""
    MOONCAKE = "mooncake"


class Where(Enum):
    """Whose memory the values lie in."""

    OTHER = "other"
    OWN = "own"


@dataclass(frozen=True)
class Plan:
    """What to measure, and how. ``duration`` (seconds) is each engine's share of a case, split into ``rounds``."""

    cases: Sequence[Case]
    engines: Sequence[Engine] = (Engine.OURS,)
    where: Where = Where.OTHER
    duration: float = 3.0
    rounds: int = 3
    verify: bool = True

    @property
    def footprint(self) -> int:
        """Bytes of registered memory of a worker."""
        return max(case.footprint for case in self.cases)

    @property
    def segment(self) -> int:
        """Bytes of the pool."""
        return max(MIN_SEGMENT, ROOM * self.footprint)


@dataclass(slots=True)
class Row:
    """What one engine reached in one case, and what upstream's did in the same rounds (none: not measured)."""

    case: Case
    engine: Engine
    rounds: list[Measurement] = field(default_factory=list)
    beside: list[Measurement] = field(default_factory=list)

    @property
    def keys(self) -> float:
        """Keys a second; the median of the rounds."""
        return statistics.median(_keys(each, self.case) for each in self.rounds)

    @property
    def ratio(self) -> float | None:
        """What that is of the other's in the same rounds; the median of the rounds."""
        pairs = zip(self.rounds, self.beside, strict=True) if self.beside else ()
        ratios = [_keys(own, self.case) / _keys(other, self.case) for own, other in pairs]
        return statistics.median(ratios) if ratios else None

    def to_json(self) -> dict[str, Any]:
        """Keys a second, decimal GB/s, latencies of a call in microseconds, and the ratio to upstream's."""
        latencies = merged(self.rounds)
        return {
            "engine": self.engine.value,
            **self.case.to_json(),
            "keys_per_second": self.keys,
            "gbps": median_gbps(self.rounds),
            "ratio": self.ratio,
            "average_us": latencies.average / 1e3,
            "p50_us": latencies.percentile(50) / 1e3,
            "p99_us": latencies.percentile(99) / 1e3,
            "rounds_keys_per_second": [_keys(each, self.case) for each in self.rounds],
        }


def _keys(measurement: Measurement, case: Case) -> float:
    return measurement.batches * case.batch / measurement.seconds


def run(plan: Plan) -> Iterator[Row]:
    """Measure; a row for each case and engine, as they are ready.

    Raises ``UsageError`` for what cannot be measured so, ``TransportUnavailable`` (no wheel), ``BytesDiffer``,
    ``BenchFailed``, and what the engine raises.
    """
    _check(plan)
    with contextlib.ExitStack() as stack:
        workers = {engine: _worker(plan, engine, stack) for engine in plan.engines}
        for number, case in enumerate(plan.cases):
            yield from _measure(plan, case, workers, seed=1 + number)


def _check(plan: Plan) -> None:
    if not plan.cases or not plan.engines:
        raise UsageError(detail="there is nothing to measure")
    if not 0 < plan.duration <= MAX_SECONDS:
        raise UsageError(detail=f"times are from 0 to {MAX_SECONDS:g} s")
    if not 1 <= plan.rounds <= MAX_ROUNDS:
        raise UsageError(detail=f"from 1 to {MAX_ROUNDS} rounds are possible")
    if plan.segment > MAX_SEGMENT:
        raise UsageError(detail=f"the cases need a pool of {plan.segment} bytes; at most {MAX_SEGMENT} are given")


def _worker(plan: Plan, engine: Engine, stack: contextlib.ExitStack) -> Process:
    """The client that is measured, with a master of its own, and somebody who gives memory to both."""

    def start(role: str, **arguments: Any) -> Process:
        process = Process(role, engine.value, MODULE, **arguments)
        stack.callback(process.close)
        return process

    if engine is Engine.MOONCAKE:
        address = stack.enter_context(RealMaster()).address
    else:
        address = start("master").hello["address"]
    own = plan.where is Where.OWN
    if not own:
        start("giver", master=address, segment=plan.segment)
    room = int(FILL * plan.segment)
    return start("worker", master=address, length=plan.footprint, segment=plan.segment if own else 0, room=room)


def _measure(plan: Plan, case: Case, workers: dict[Engine, Process], seed: int) -> list[Row]:
    if plan.verify:
        for worker in workers.values():
            worker.ask({"do": "verify", "case": case.to_json(), "seed": seed})
    found: dict[Engine, list[Measurement]] = {engine: [] for engine in workers}
    seconds = plan.duration / plan.rounds
    engines = list(workers)
    for number in range(plan.rounds):
        turn = number % len(engines)
        for engine in engines[turn:] + engines[:turn]:
            question = {"do": "measure", "case": case.to_json(), "seconds": seconds}
            answer = workers[engine].ask(question, timeout=seconds + ANSWER_TIMEOUT + SETTLED_SECONDS)
            found[engine].append(Measurement.from_json(answer))
    beside = found.get(Engine.MOONCAKE, [])
    return [
        Row(case, engine, found[engine], beside if engine is not Engine.MOONCAKE else []) for engine in plan.engines
    ]
