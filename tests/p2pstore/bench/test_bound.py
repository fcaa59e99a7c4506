"""The bound: nobody is quicker than one to one, and more receivers cost the more the fewer chunks there are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.bench.bound import bound, bound_of_links, hop_cost, nearness, percentile


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


def test_links_that_are_not_equal() -> None:
    size, one, two = 10**9, [1e8], [1e8, 1e8]
    assert bound_of_links(size, 1e8, two, two) == pytest.approx(10.0), "a copy to one"
    assert bound_of_links(size, 5e7, two, two) == pytest.approx(20.0), "the seed sends each byte"
    assert bound_of_links(size, 1e8, two, [1e8, 1e7]) == pytest.approx(100.0), "the slowest takes each byte"
    assert bound_of_links(size, 1e8, [1e7] * 9, [1e8] * 9) == pytest.approx(9 * size / (1e8 + 9e7)), "all send"
    assert bound_of_links(size, 1e8, one, one) == bound(size, 1e8, 1, 10)


@given(st.integers(2, 10**4), st.integers(1, 10**4), st.floats(0.5, 20))
def test_the_hop_cost_is_what_the_law_was_written_with(receivers: int, chunks: int, cost: float) -> None:
    seconds = 10.0 * (1 + cost * math.log2(receivers) / chunks)
    assert hop_cost(seconds, 10**9, 1e8, receivers, chunks) == pytest.approx(cost, rel=1e-6)
    assert hop_cost(bound(10**9, 1e8, receivers, chunks), 10**9, 1e8, receivers, chunks) == pytest.approx(1, rel=1e-6)


def test_one_receiver_has_no_hop_cost() -> None:
    assert hop_cost(12.0, 10**9, 1e8, 1, 100) is None


def test_nearness_of_equal_links_and_of_others() -> None:
    equal = nearness(12.0, 10**9, 1e8, 1024, 100)
    assert (equal.over_copy, equal.bound) == (pytest.approx(1.2), pytest.approx(11.0))
    assert (equal.hop_cost, equal.percent) == (pytest.approx(2.0), pytest.approx(100 * 11 / 12))
    assert equal.to_json() == {"over_copy": 1.2, "c": 2.0, "bound": 11.0, "percent_of_bound": 91.67}
    other = nearness(125.0, 10**9, 1e8, 1024, 100, least=100.0)
    assert (other.hop_cost, other.percent) == (None, pytest.approx(80.0))
    assert nearness(0.0, 10**9, 1e8, 1024, 100).percent == 0.0, "nobody was through"


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_enough_are_not_above_it(values: list[float], part: float) -> None:
    found = percentile(values, part)
    assert found in values
    assert sum(value <= found for value in values) >= part * len(values) - 1e-9 * len(values)
