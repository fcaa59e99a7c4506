from __future__ import annotations

import pytest

from engine.bench.cases import MAX_CASES, MAX_THREADS, Case, Operation, doubling, sweep
from engine.errors import UsageError


def test_a_sweep_is_every_combination_once() -> None:
    cases = sweep([Operation.READ, Operation.WRITE], [64, 128, 64], [1], [1, 4])
    assert [(case.operation.value, case.block_size, case.threads) for case in cases] == [
        ("read", 64, 1), ("read", 64, 4), ("read", 128, 1), ("read", 128, 4),
        ("write", 64, 1), ("write", 64, 4), ("write", 128, 1), ("write", 128, 4),
    ]  # fmt: skip


def test_footprint() -> None:
    case = Case(Operation.MIXED, 1000, 16, 4)
    assert (case.batch_bytes, case.footprint) == (16_000, 64_000)
    assert Case.from_json(case.to_json()) == case


@pytest.mark.parametrize(("first", "last", "expected"), [(4, 64, [4, 8, 16, 32, 64]), (3, 13, [3, 6, 12]), (5, 5, [5])])
def test_doubling(first: int, last: int, expected: list[int]) -> None:
    assert doubling(first, last) == expected


@pytest.mark.parametrize(("first", "last"), [(0, 4), (8, 4), (-1, 1)])
def test_an_empty_range_is_refused(first: int, last: int) -> None:
    with pytest.raises(UsageError, match="is empty"):
        doubling(first, last)


def test_limits() -> None:
    with pytest.raises(UsageError, match=f"number of threads of {MAX_THREADS + 1}"):
        sweep([Operation.READ], [1], [1], [MAX_THREADS + 1])
    with pytest.raises(UsageError, match="block size of 0"):
        sweep([Operation.READ], [0], [1], [1])
    with pytest.raises(UsageError, match="batch size of 100000"):
        sweep([Operation.READ], [1], [100_000], [1])
    with pytest.raises(UsageError, match=f"sweep of {MAX_CASES + 1} cases"):
        sweep([Operation.READ], range(1, MAX_CASES + 2), [1], [1])
    with pytest.raises(UsageError, match="sweep of 0 cases"):
        sweep([], [1], [1], [1])
