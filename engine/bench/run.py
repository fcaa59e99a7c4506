"""Running a sweep: processes for each engine and for the socket loop, measured in turn within every round.

What else happens on a machine changes what everybody reaches. So a case is measured in several rounds, each of which
gives all of them the same time one after the other, in an order that changes; figures are medians over the rounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from engine.bench.cases import Case, Operation
from engine.bench.process import ANSWER_TIMEOUT, Process
from engine.bench.statistics import Measurement, cpu_per_gb, median_gbps, median_ratio, merged
from engine.bench.targets import TargetAddress, find
from engine.bench.verbs_loop import perftest_for
from engine.engine import P2PHANDSHAKE
from engine.errors import PeerUnreachable, Refused, UsageError

SOCKET, VERBS, PERFTEST = "socket", "verbs", "perftest"
"""The yardsticks: the bare socket loop over TCP; the smallest loop of verbs, or perftest's programs, over RDMA."""

MAX_SECONDS = 3600.0
"""Seconds of one case."""

MAX_ROUNDS = 100


class Engine(Enum):
    """Whom to measure."""

    OURS = "ours"
    MOONCAKE = "mooncake"
    OURS_TCP = "ours-tcp"
    """Ours over TCP, to compare with where the transport is another."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how. ``duration`` (seconds) is each engine's share of a case, split into ``rounds``.

    Without ``target`` there is one process for each engine and side, on loopback. ``force`` allows to write into a
    segment that is no bench's. ``transport`` is tcp or rdma; ``device`` the RDMA device to use here, and
    ``target_device`` that of the targets that we start.
    """

    cases: Sequence[Case]
    engines: Sequence[Engine] = (Engine.OURS,)
    duration: float = 5.0
    warm_up: float = 1.0
    rounds: int = 3
    verify: bool = False
    target: str | None = None
    metadata_server: str = P2PHANDSHAKE
    force: bool = False
    transport: str = "tcp"
    device: str = ""
    target_device: str = ""

    @property
    def yardstick(self) -> str:
        """What to compare with: perftest where it is installed, all is on this machine, and it has the operation."""
        if self.transport == "tcp":
            return SOCKET
        local = self.target is None and all(perftest_for(case.operation) for case in self.cases)
        return PERFTEST if local else VERBS

    @property
    def footprint(self) -> int:
        """Bytes of memory of each process."""
        return max(case.footprint for case in self.cases)


@dataclass(slots=True)
class Row:
    """What one engine reached in one case, and what the yardstick did in the same rounds (none: not measured)."""

    case: Case
    engine: Engine
    rounds: list[Measurement] = field(default_factory=list)
    socket: list[Measurement] = field(default_factory=list)
    yardstick: str = SOCKET

    @property
    def gbps(self) -> float:
        """The median of the rounds' bandwidths, in decimal GB/s."""
        return median_gbps(self.rounds)

    @property
    def ratio(self) -> float | None:
        """What that is of the yardstick's; the median of the rounds."""
        return median_ratio(self.rounds, self.socket)

    @property
    def seconds(self) -> float:
        """Time measured, over all rounds."""
        return sum(each.seconds for each in self.rounds)

    @property
    def batches(self) -> int:
        """Batches moved, over all rounds."""
        return sum(each.batches for each in self.rounds)

    @property
    def bytes(self) -> int:
        """Bytes moved, over all rounds."""
        return sum(each.bytes for each in self.rounds)

    def to_json(self) -> dict[str, Any]:
        """Bandwidths in decimal GB/s, latencies in microseconds, processor time of both sides in seconds.

        Of a target elsewhere the processor time is not known, and left out. What is named for the socket is the
        yardstick's, whichever it is.
        """
        latencies = merged(self.rounds)
        return {
            "engine": self.engine.value,
            **self.case.to_json(),
            "yardstick": self.yardstick,
            "gbps": self.gbps,
            "socket_gbps": median_gbps(self.socket) if self.socket else None,
            "percent_of_socket": None if self.ratio is None else self.ratio * 100,
            "average_us": latencies.average / 1e3,
            "p99_us": latencies.percentile(99) / 1e3,
            "p999_us": latencies.percentile(99.9) / 1e3,
            "seconds": self.seconds,
            "batches": self.batches,
            "bytes": self.bytes,
            "cpu_seconds_per_gb": cpu_per_gb(self.rounds),
            "socket_cpu_seconds_per_gb": cpu_per_gb(self.socket) if self.socket else None,
            "rounds_gbps": [each.gbps for each in self.rounds],
            "rounds_socket_gbps": [each.gbps for each in self.socket],
        }


@dataclass(frozen=True, slots=True)
class _Pair:
    """The processes of one engine; a target elsewhere is none of ours."""

    initiator: Process
    target: Process | None

    def verify(self, what: str, case: Case, seed: int) -> None:
        self.initiator.ask({"do": what, "case": case.to_json(), "seed": seed})

    def measure(self, case: Case, seconds: float) -> Measurement:
        before = self._target_cpu()
        question = {"do": "measure", "case": case.to_json(), "seconds": seconds}
        found = Measurement.from_json(self.initiator.ask(question, timeout=seconds + ANSWER_TIMEOUT))
        found.cpu += self._target_cpu() - before
        return found

    def _target_cpu(self) -> float:
        return float(self.target.ask({})) if self.target is not None else 0.0


def run(plan: Plan, note: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
    """Measure; a row for each case and engine, as they are ready. ``note`` is told what a reader should know.

    Raises ``UsageError`` for what cannot be measured so, ``Refused`` (a target that is not there to be written to),
    ``TransportUnavailable`` (no wheel), ``BytesDiffer``, ``BenchFailed``, and what the engine raises.
    """
    _check(plan)
    try:
        yield from _run(plan, note)
    except PeerUnreachable as error:
        if plan.target is not None:
            error.fields["target"] = plan.target
        raise


def _run(plan: Plan, note: Callable[[str], None]) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        pairs = {}
        for kind, (address, target) in _targets(plan, stack, note).items():
            arguments = {"target": address.to_json(), "length": plan.footprint, **_arguments(plan, kind)}
            pairs[kind] = _Pair(_start(stack, "initiator", kind, **arguments), target)
        for number, case in enumerate(plan.cases):
            yield from _measure(plan, case, pairs, seed=1 + number * 1000)


def _check(plan: Plan) -> None:
    if not plan.cases or not plan.engines:
        raise UsageError(detail="there is nothing to measure")
    if not 0 < plan.duration <= MAX_SECONDS or not 0 <= plan.warm_up <= MAX_SECONDS:
        raise UsageError(detail=f"times are from 0 to {MAX_SECONDS:g} s")
    if not 1 <= plan.rounds <= MAX_ROUNDS:
        raise UsageError(detail=f"from 1 to {MAX_ROUNDS} rounds are possible")


def _targets(
    plan: Plan, stack: contextlib.ExitStack, note: Callable[[str], None]
) -> dict[str, tuple[TargetAddress, Process | None]]:
    """The target of each kind of initiator, and its process where we start one."""
    kinds = [engine.value for engine in plan.engines]
    if plan.target is None:
        started = {
            kind: _start(stack, "target", kind, length=plan.footprint, **_target_arguments(plan, kind))
            for kind in (plan.yardstick, *kinds)
        }
        return {kind: (TargetAddress(**process.hello), process) for kind, process in started.items()}
    found = find(plan.target, plan.metadata_server)
    if found.length < plan.footprint:
        raise UsageError(detail=f"the cases need {plan.footprint} bytes, and {plan.target} has {found.length}")
    writes = plan.verify or any(case.operation is not Operation.READ for case in plan.cases)
    if writes and not found.ours and not plan.force:
        raise Refused(detail=f"{plan.target} is no bench's target: writing would destroy what is in its memory")
    if plan.transport == "rdma":
        return dict.fromkeys((VERBS, *kinds), (found, None))
    if found.socket_port:
        return dict.fromkeys((SOCKET, *kinds), (found, None))
    note(f"{plan.target} is no bench's target: there is no socket loop to compare with")
    return dict.fromkeys(kinds, (found, None))


def _start(stack: contextlib.ExitStack, role: str, kind: str, **arguments: Any) -> Process:
    process = Process(role, kind, **arguments)
    stack.callback(process.close)
    return process


def _target_arguments(plan: Plan, kind: str) -> dict[str, str]:
    if plan.transport == "tcp" or kind == Engine.OURS_TCP.value:
        return {}
    return {"protocol": plan.transport, "device": plan.target_device}


def _arguments(plan: Plan, kind: str) -> dict[str, str]:
    metadata = {"metadata_server": plan.metadata_server if plan.target else P2PHANDSHAKE}
    if kind == SOCKET:
        return {}
    if kind == PERFTEST:
        return {"device": plan.device, "target_device": plan.target_device}
    if kind == VERBS:
        return {**metadata, "device": plan.device}
    if plan.transport == "tcp" or kind == Engine.OURS_TCP.value:
        return metadata
    return {**metadata, "protocol": plan.transport, "device": plan.device}


def _measure(plan: Plan, case: Case, pairs: dict[str, _Pair], seed: int) -> list[Row]:
    kinds = list(pairs)
    for pair in pairs.values():
        if plan.verify:
            pair.verify("verify", case, seed)
        if plan.warm_up:
            pair.measure(case, plan.warm_up)
    found: dict[str, list[Measurement]] = {kind: [] for kind in kinds}
    for number in range(plan.rounds):
        turn = number % len(kinds)
        for kind in kinds[turn:] + kinds[:turn]:
            found[kind].append(pairs[kind].measure(case, plan.duration / plan.rounds))
    if plan.verify:
        for pair in pairs.values():
            pair.verify("verify_after", case, seed)
    yardstick = plan.yardstick
    return [Row(case, engine, found[engine.value], found.get(yardstick, []), yardstick) for engine in plan.engines]
