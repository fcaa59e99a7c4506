"""How long something may take, by how long such things take."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.patience import AVERAGE_WEIGHT, Patience

SECONDS = st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=20)


def test_while_nothing_is_known_nothing_is_too_slow() -> None:
    assert Patience(1.0).limit(3.0) == math.inf
    assert Patience(1.0, first=10.0).limit(3.0) == 10.0


def test_what_took_no_time_is_known_and_does_not_stay_the_average() -> None:
    patience = Patience(1.0)
    patience.took(0.0)
    assert patience.limit(3.0) == 1.0
    patience.took(5.0, most=4.0)
    assert patience.limit(3.0) == 15.0


def test_the_limit_is_so_many_times_what_the_first_took() -> None:
    patience = Patience(1.0)
    patience.took(4.0)
    assert patience.limit(3.0) == 12.0


def test_nothing_is_too_slow_before_the_floor() -> None:
    patience = Patience(2.0)
    patience.took(0.01)
    assert patience.limit(8.0) == 2.0


def test_the_newest_counts_by_its_weight() -> None:
    patience = Patience(0.0)
    patience.took(10.0)
    patience.took(20.0)
    assert patience.limit(1.0) == pytest.approx(10.0 + AVERAGE_WEIGHT * 10.0)


def test_one_that_hung_counts_as_if_it_had_just_been_too_slow() -> None:
    hung, just = Patience(0.0), Patience(0.0)
    for each in (hung, just):
        each.took(1.0, most=4.0)
    hung.took(1000.0, most=4.0)
    just.took(4.0)
    assert hung.limit(1.0) == just.limit(1.0)


@given(SECONDS)
def test_the_average_stays_between_the_shortest_and_the_longest(seconds: list[float]) -> None:
    patience = Patience(0.0)
    for each in seconds:
        patience.took(each)
    assert min(seconds) * 0.999 <= patience.limit(1.0) <= max(seconds) * 1.001
