"""Few fetches at a time where messages are quick beside them, more and sooner where they are not."""

from __future__ import annotations

import pytest

from p2pstore.swarm.pace import (
    FIRST_LEAD,
    LATE_CHUNKS,
    MAX_LATE,
    MAX_LEAD,
    MAX_PLACES,
    MIN_LATE,
    MIN_PLACES,
    Pace,
    fetches,
)


def measured(turn: float, chunk: float) -> Pace:
    pace = Pace()
    pace.answered(turn)
    pace.took(3 * chunk, 3)
    return pace


def test_before_anything_is_measured() -> None:
    pace = Pace()
    assert (pace.places, pace.lead) == (MIN_PLACES, FIRST_LEAD)
    pace.answered(1.0)
    assert (pace.places, pace.lead) == (MIN_PLACES, FIRST_LEAD)


@pytest.mark.parametrize(
    ("ratio", "places"), [(1000.0, MIN_PLACES), (130.0, MIN_PLACES), (4.0, 2), (2.0, 3), (1.0, 4), (0.01, MAX_PLACES)]
)
def test_the_shorter_a_chunk_the_more_at_a_time(ratio: float, places: int) -> None:
    assert measured(0.001, 0.001 * ratio).places == places


@pytest.mark.parametrize(("count", "places"), [(1, 2), (100, 2), (256, 3), (1193, 4), (2087, 5), (20_000, MAX_PLACES)])
def test_the_more_fetches_the_more_at_a_time(count: int, places: int) -> None:
    assert Pace(count).places == places


def test_both_count() -> None:
    pace = Pace(1193)
    pace.answered(0.0004)
    pace.took(0.0067, 1)
    assert pace.places == 5


def test_small_chunks_are_fetched_several_at_a_time() -> None:
    assert fetches([1 << 26] * 100) == 100
    assert fetches([1 << 10] * 2048 + [1 << 20]) == 3
    assert fetches([]) == 0


def test_an_origin_has_more() -> None:
    assert Pace(256).places_of_origin == 4
    assert measured(1.0, 0.1).places_of_origin == 10


def test_the_lead_is_the_time_of_two_questions() -> None:
    assert measured(0.004, 0.042).lead == pytest.approx(2 * 0.004 / (2 * 0.042))
    assert measured(1.0, 0.01).lead == MAX_LEAD


def test_it_follows_what_changes_slowly() -> None:
    pace = measured(0.001, 0.1)
    for _ in range(100):
        pace.answered(0.1)
    assert pace.places > MIN_PLACES


def test_news_may_be_some_chunks_late() -> None:
    assert Pace().late == MIN_LATE
    assert measured(0.001, 0.02).late == pytest.approx(LATE_CHUNKS * 0.02)
    assert measured(0.001, 1e-6).late == MIN_LATE
    assert measured(0.001, 10.0).late == MAX_LATE
