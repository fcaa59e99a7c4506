"""Processors that all nodes of a simulation share: what comes first is done first, and none does two things at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.bench.simulated_processors import COSTS, Costs, Processors


def test_one_processor_does_one_thing_after_another() -> None:
    processors = Processors(1)
    assert [processors.take(at, 2.0) for at in (0.0, 1.0, 10.0)] == [2.0, 4.0, 12.0]
    assert processors.spent == 6.0


def test_two_processors_do_two_things_at_once() -> None:
    processors = Processors(2)
    assert [processors.take(0.0, seconds) for seconds in (3.0, 1.0, 1.0)] == [3.0, 1.0, 2.0]


@given(st.integers(1, 5), st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=40))
def test_they_are_never_busier_than_they_are_many(count: int, work: list[tuple[float, float]]) -> None:
    processors, now, ends = Processors(count), 0.0, []
    for pause, seconds in work:
        now += pause
        ends.append(processors.take(now, seconds))
        assert ends[-1] >= now + seconds
    assert processors.spent == pytest.approx(sum(seconds for _, seconds in work))
    assert processors.spent <= count * max(ends, default=0.0) + 1e-9


def test_there_is_one_at_least_and_none_gives_time_back() -> None:
    with pytest.raises(ValueError, match="one processor"):
        Processors(0)
    with pytest.raises(ValueError, match="take time"):
        Costs(-1.0, 0.0)
    assert min(COSTS.byte_seconds, COSTS.message_seconds) > 0
