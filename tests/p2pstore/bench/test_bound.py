"""The bound: nobody is quicker than one to one, and more receivers cost the more the fewer chunks there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.bench.bound import bound, percentile


def test_one_receiver_takes_as_long_as_its_link() -> None:
    assert bound(10**9, 1e8, receivers=1, chunks=1000) == pytest.approx(10.0)


def test_a_thousand_receivers() -> None:
    assert bound(10**9, 1e8, receivers=1024, chunks=100) == pytest.approx(10.0 * 1.1)


@given(st.integers(1, 10**12), st.integers(1, 10**4), st.integers(1, 10**4))
def test_more_receivers_take_no_less_and_more_chunks_no_more(size: int, receivers: int, chunks: int) -> None:
    this = bound(size, 1e9, receivers, chunks)
    assert this >= size / 1e9
    assert bound(size, 1e9, receivers + 1, chunks) >= this
    assert bound(size, 1e9, receivers, chunks + 1) <= this


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_enough_are_not_above_it(values: list[float], part: float) -> None:
    found = percentile(values, part)
    assert found in values
    assert sum(value <= found for value in values) >= part * len(values) - 1e-9 * len(values)
