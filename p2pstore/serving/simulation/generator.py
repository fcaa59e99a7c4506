"""Traces with the published statistics of workloads, for those who have no trace. Equal seeds make equal traces.

Requests arrive at random, evenly over the time. Each begins a session or goes on with one: then its prompt is that
before it, the answer, and something more. Sessions of one tenant begin alike. So a prompt's blocks are those of an
earlier one up to where they part, as in real traces; what is not modelled is that real arrivals come in bursts.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from p2pstore.serving.simulation.trace import Request

BLOCK_TOKENS = 512
"""Tokens of a block of the open traces."""

MOST_TOKENS = 126_000
"""The longest prompt, which is about that of the published traces."""

LEAST_PAUSE_SECONDS = 10.0
"""A session goes on no sooner after its last request."""

RECENT = 600
"""A session that goes on is one of so many, the last ones."""

_ROUNDS = 4
"""How often lengths are scaled so that their mean is the published one."""


@dataclass(frozen=True)
class Part:
    """One sort of session: its share of all requests, and how likely a request goes on with a session.

    ``first`` and ``more`` are mean tokens of a session's first prompt, beside what the tenant's sessions have in
    common, and of what each further one adds. ``common`` is that, in blocks.
    """

    share: float
    goes_on: float
    first: float
    more: float
    tenants: int = 1
    common: int = 0


@dataclass(frozen=True)
class Workload:
    """What was published of a trace: how many requests in how many seconds, mean lengths, and the reuse of blocks.

    ``reuse`` is the part of all blocks that one cache without bounds would have. ``parts`` are ours, chosen so that it
    comes out.
    """

    requests: int
    seconds: float
    input: float
    output: float
    reuse: float
    parts: Sequence[Part]
    source: str


_RELEASE = "Mooncake's FAST25-release"

WORKLOADS = {
    "conversation": Workload(
        12_031, 3537.0, 12_035, 343, 0.366, [Part(1.0, 0.355, 10_750, 1700, 1, 1)], f"{_RELEASE}, conversation_trace"
    ),
    "toolagent": Workload(
        23_608,
        3537.0,
        8596,
        182,
        0.59,
        [Part(0.8, 0.0, 1700, 0, 40, 10), Part(0.2, 0.4, 14_000, 1700)],
        f"FAST'25, table 2, and the README of {_RELEASE}",
    ),
    "synthetic": Workload(
        3993,
        1022.0,
        15_325,
        149,
        0.640,
        [Part(0.45, 0.3, 350, 100), Part(0.55, 0.68, 26_500, 200)],
        f"{_RELEASE}, synthetic_trace",
    ),
}
"""``conversation`` and ``synthetic`` were counted in the traces; the paper says 40% and 66% of the reuse."""

_SPREAD = 1.15
"""Standard deviation of the logarithm of lengths, as in the conversation trace."""


@dataclass(slots=True)
class _Turn:
    """A request that is drawn; its lengths are still to be scaled."""

    time: float
    part: Part
    before: int | None
    tenant: int
    added: float
    output: float


def generate(workload: Workload, seed: int = 0, requests: int | None = None) -> list[Request]:
    """A trace of so many requests (as many as were published) at the published rate."""
    drawn = random.Random(seed)  # noqa: S311 - repeatable is what it must be
    count = workload.requests if requests is None else requests
    turns = list(_turns(workload, count, drawn))
    outputs = _outputs(turns, workload.output)
    scale = 1.0
    for _ in range(_ROUNDS):
        lengths = _lengths(turns, outputs, scale)
        scale *= workload.input / (sum(lengths) / count)
    lengths = _lengths(turns, outputs, scale)
    return list(_requests(turns, lengths, outputs))


def _turns(workload: Workload, count: int, drawn: random.Random) -> Iterator[_Turn]:
    parts = workload.parts
    seconds = workload.seconds * count / workload.requests
    open_: dict[int, list[tuple[float, int]]] = {place: [] for place in range(len(parts))}
    tenants: dict[int, int] = {}
    for number, time in enumerate(sorted(drawn.uniform(0, seconds) for _ in range(count))):
        (place,) = drawn.choices(range(len(parts)), [part.share for part in parts])
        part, waiting = parts[place], open_[place]
        before = None
        if drawn.random() < part.goes_on:
            before = _idle(waiting, time, drawn)
        tenant = int(drawn.paretovariate(1.0)) % part.tenants if before is None else tenants[before]
        tenants[number] = tenant
        waiting.append((time, number))
        if len(waiting) > RECENT:
            waiting.pop(0)
        mean = part.first if before is None else part.more
        yield _Turn(time, part, before, place * 10_000 + tenant, mean * _around_1(drawn), _around_1(drawn))


def _idle(waiting: list[tuple[float, int]], time: float, drawn: random.Random) -> int | None:
    """The last request of a session that goes on now; it is taken out."""
    ready = 0
    while ready < len(waiting) and waiting[ready][0] <= time - LEAST_PAUSE_SECONDS:
        ready += 1
    return waiting.pop(drawn.randrange(ready))[1] if ready else None


def _around_1(drawn: random.Random) -> float:
    return drawn.lognormvariate(-_SPREAD * _SPREAD / 2, _SPREAD)


def _outputs(turns: Sequence[_Turn], mean: float) -> list[int]:
    whole = sum(turn.output for turn in turns) / len(turns)
    return [max(1, round(turn.output / whole * mean)) for turn in turns]


def _lengths(turns: Sequence[_Turn], outputs: Sequence[int], scale: float) -> list[int]:
    lengths: list[int] = []
    for turn in turns:
        if turn.before is None:
            length = turn.part.common * BLOCK_TOKENS + turn.added * scale
        else:
            length = lengths[turn.before] + outputs[turn.before] + turn.added
        lengths.append(max(1, min(MOST_TOKENS, round(length))))
    return lengths


def _requests(turns: Sequence[_Turn], lengths: Sequence[int], outputs: Sequence[int]) -> Iterator[Request]:
    numbers = itertools.count()
    common: dict[int, tuple[int, ...]] = {}
    made: list[tuple[int, ...]] = []
    for turn, length, output in zip(turns, lengths, outputs, strict=True):
        if turn.before is None:
            shared = common.setdefault(turn.tenant, tuple(itertools.islice(numbers, turn.part.common)))
        else:
            shared = made[turn.before][: lengths[turn.before] // BLOCK_TOKENS]
        blocks = -(-length // BLOCK_TOKENS)
        made.append(shared[:blocks] + tuple(itertools.islice(numbers, max(0, blocks - len(shared)))))
        yield Request(turn.time, length, output, made[-1])
