from __future__ import annotations

import pytest

from engine.errors import UsageError
from p2pstore.bench.store import Case, Operation, sweep


def test_a_sweep_has_every_combination_once() -> None:
    cases = sweep([Operation.PUT, Operation.GET], [4096, 4096, 8192], [1], [1, 2])
    assert len(cases) == 8
    assert cases[0] == Case(Operation.PUT, 4096, 1, 1)
    assert cases[-1].footprint == 2 * 8192
    assert all(Case.from_json(case.to_json()) == case for case in cases)


@pytest.mark.parametrize(
    ("sizes", "batches", "threads"),
    [([0], [1], [1]), ([1 << 31], [1], [1]), ([1], [1 << 20], [1]), ([1], [1], [65]), ([], [1], [1])],
)
def test_what_is_beyond_a_limit_is_refused(sizes: list[int], batches: list[int], threads: list[int]) -> None:
    with pytest.raises(UsageError):
        sweep([Operation.PUT], sizes, batches, threads)
