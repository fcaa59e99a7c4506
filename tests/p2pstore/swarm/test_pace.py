"""Few fetches at a time where messages are quick beside them, more and sooner where they are not."""

from __future__ import annotations

import pytest

from p2pstore.swarm.pace import FIRST_LEAD, LATE_CHUNKS, MAX_LATE, MAX_LEAD, MAX_PLACES, MIN_LATE, MIN_PLACES, Pace


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
    ("ratio", "places"), [(1000.0, MIN_PLACES), (130.0, MIN_PLACES), (10.0, 3), (2.0, 5), (1.0, 6), (0.01, MAX_PLACES)]
)
def test_the_shorter_a_chunk_the_more_at_a_time(ratio: float, places: int) -> None:
    assert measured(0.001, 0.001 * ratio).places == places


def test_an_origin_has_more() -> None:
    assert Pace().places_of_origin == MIN_PLACES + 1
    assert measured(1.0, 1.0).places_of_origin == 8


def test_the_lead_is_the_time_of_two_questions() -> None:
    assert measured(0.004, 0.042).lead == pytest.approx(2 * 0.004 / (3 * 0.042))
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
