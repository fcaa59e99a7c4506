"""What is refused, and what a client is told to wait."""

from __future__ import annotations

import pytest

from p2pstore.serving.admission import LEAST_RETRY_SECONDS, MOST_RETRY_SECONDS, Admission, Gate, Objectives, retry_after
from p2pstore.serving.costs import DecodeCost
from p2pstore.serving.events import Kind, Reason
from p2pstore.serving.instances import Instance, Tracked

COST = DecodeCost(0.1, 0.001, 1000)
TOKENS = 100


def decode(running: int, coming: int = 0, ends: float = 1000.0) -> Instance:
    """Requests of 50 tokens: such that run since 0 and end after ``ends`` steps, and such that come at 5 s."""
    made = Instance("d", Kind.DECODE, 0)
    for number in range(running + coming):
        tracked = Tracked(number, 50, (), 0.0, first=5.0, expected=ends)
        made.assign(tracked)
        if number < running:
            made.take(tracked)
            tracked.first = tracked.joined = 0.0
    return made


def gate(admission: Admission) -> Gate:
    return Gate(admission, Objectives(ttft=10.0, tbt=0.2), COST)


def asked(first: float = 10.0) -> Tracked:
    return Tracked("x", 50, (), 0.0, first=first, expected=TOKENS)


def test_what_is_coming_counts_for_a_prediction_alone() -> None:
    busy = decode(running=0, coming=2)
    assert gate(Admission.EARLY).arriving(asked(), busy, 0.0) == pytest.approx(0.15)
    assert gate(Admission.PREDICTED).arriving(asked(), busy, 0.0) == pytest.approx(0.25)
    assert gate(Admission.PREDICTED).arriving(asked(first=4.0), busy, 0.0) == pytest.approx(0.15)


def test_what_will_have_ended_does_not() -> None:
    busy = decode(running=2, ends=11)  # ten steps of 0.2 s
    assert gate(Admission.EARLY).arriving(asked(), busy, 0.0) == pytest.approx(0.25)
    assert gate(Admission.PREDICTED).arriving(asked(first=1.9), busy, 0.0) == pytest.approx(0.25)
    assert gate(Admission.PREDICTED).arriving(asked(first=2.1), busy, 0.0) == pytest.approx(0.15)


def test_a_batch_without_room_makes_the_first_gap_long() -> None:
    full = decode(running=20)
    step = COST.seconds(1000)
    freed = 1000 / 1000 / step
    assert gate(Admission.EARLY).now(asked(), full) == pytest.approx(step + 50 / freed)


def test_what_waits_for_room_is_still_to_begin() -> None:
    busy = decode(running=1, ends=11)
    waiting = next(iter(busy.running.values()))
    waiting.joined = None
    assert gate(Admission.PREDICTED).arriving(asked(first=2.5), busy, 1.5) == pytest.approx(0.2)


def test_what_should_have_ended_goes_on_for_a_while() -> None:
    busy = decode(running=1, ends=2)
    assert gate(Admission.PREDICTED).arriving(asked(first=14.9), busy, 10.0) == pytest.approx(0.2)
    assert gate(Admission.PREDICTED).arriving(asked(first=15.1), busy, 10.0) == pytest.approx(0.15)


@pytest.mark.parametrize("admission", Admission)
def test_who_refuses_what(admission: Admission) -> None:
    made = gate(admission)
    slow, late = made.at_arrival("x", 1.0, 0.3), made.at_arrival("x", 11.0, 0.1)
    computed = made.at_decode("x", 0.3)
    assert (late is None) == (admission is Admission.NONE) == (computed is None)
    assert (slow is None) == (admission in {Admission.NONE, Admission.LATE})
    assert made.at_arrival("x", 10.0, 0.2) is None
    for refused, reason in ((slow, Reason.TBT), (late, Reason.TTFT), (computed, Reason.TBT)):
        assert refused is None or refused.reason is reason


def test_a_wait_is_neither_none_nor_for_ever() -> None:
    assert retry_after(0.0) == LEAST_RETRY_SECONDS
    assert retry_after(7.0) == 7.0
    assert retry_after(1e9) == MOST_RETRY_SECONDS
