"""An instance that fails what it is asked is ejected: passed over for a while, then asked again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.serving.ejection import EJECT_FAILURES, EJECTIONS
from p2pstore.serving.events import (
    Arrive,
    Decision,
    Decode,
    Ejected,
    Event,
    Failed,
    Finish,
    InstanceUp,
    Lost,
    Place,
    PrefillDone,
)
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from tests.p2pstore.serving.story import KINDS, PREFILLS, Story, started


def served_by(story: Story, number: int, broken: set[str]) -> list[str]:
    """Take a request to its end, where the broken fail all: on whom it was, in order."""
    asked: list[str] = []
    decisions = story.tell(Arrive(number, 1000))
    while (place := next((one for one in decisions if isinstance(one, Place)), None)) is not None:
        asked.append(place.prefill)
        if place.prefill in broken:
            decisions = story.tell(Failed(number, place.prefill))
            continue
        (decode,) = story.tell(PrefillDone(number))
        assert isinstance(decode, Decode)
        asked.append(decode.decode)
        if decode.decode in broken:
            decisions = story.tell(Failed(number, decode.decode))
            continue
        story.tell(Finish(number, 10))
        break
    return asked


class Watched(Story):
    """Sees that who is ejected gets something only where all of its kind are."""

    def tell(self, event: Event, passed: float = 0.0) -> list[Decision]:
        decisions = super().tell(event, passed)
        for decision in decisions:
            names = {Place: ("prefill", "decode"), Decode: ("decode",)}.get(type(decision), ())
            for name in (getattr(decision, name) for name in names):
                others = [one for one in self.open if KINDS[one] is KINDS[name]]
                ejected = [one for one in others if self.policy.ejected(one, self.now)]
                assert name not in ejected or ejected == others
        return decisions


@given(
    st.sampled_from(Placement),
    st.lists(
        st.tuples(st.sets(st.sampled_from(sorted(KINDS))), st.integers(1, 12), st.sampled_from([0.0, 0.1, 5.0, 400.0])),
        max_size=8,
    ),
)
@settings(max_examples=60)
def test_who_is_ejected_gets_nothing_while_another_is_there_and_is_asked_again(
    placement: Placement, phases: list[tuple[set[str], int, float]]
) -> None:
    story = Watched(PolicySettings(placement))
    list(story.run([]))
    number = 0
    for broken, count, passed in phases:
        for _ in range(count):
            number += 1
            story.now += passed
            served_by(story, number, broken)
    story.now += EJECTIONS.last
    assert not any(story.policy.ejected(name, story.now) for name in KINDS)


@pytest.mark.parametrize("broken", ["p1", "d1"])
def test_who_fails_several_in_a_row_is_passed_over_for_a_while(broken: str) -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    numbers = iter(range(10_000))

    def asked(count: int) -> int:
        return sum(served_by(story, next(numbers), {broken}).count(broken) for _ in range(count))

    while not story.policy.ejected(broken, story.now):
        asked(1)
    assert sum(served_by(story, next(numbers), {broken}).count(broken) for _ in range(30)) == 0
    for times in (1, 2, 3):
        pause = EJECTIONS.after(times)
        story.now += 0.999 * pause
        assert asked(9) == 0
        story.now += 0.002 * pause
        assert asked(30) == 1, "the first one that it fails again decides"
    story.now += EJECTIONS.last
    assert sum(served_by(story, next(numbers), set()).count(broken) for _ in range(30)) >= 9
    assert asked(30) >= EJECT_FAILURES, "what it did well makes all forgotten"


def test_it_is_said_which_is_passed_over_and_for_how_long() -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    said: list[Decision] = []
    for number in range(40):
        (placed,) = story.tell(Arrive(number, 100))
        if placed.prefill == "p0":
            said += [one for one in story.tell(Failed(number, "p0")) if isinstance(one, Ejected)]
    assert said == [Ejected("p0", EJECTIONS.after(1), EJECT_FAILURES)]
    story.now += EJECTIONS.after(1)
    for number in range(40, 50):
        (placed,) = story.tell(Arrive(number, 100))
        if placed.prefill == "p0":
            break
    assert Ejected("p0", EJECTIONS.after(2), EJECT_FAILURES + 1) in story.tell(Failed(number, "p0"))


def test_one_request_ejects_nobody_and_neither_does_being_busy() -> None:
    story = Story(PolicySettings(Placement.ROUND_ROBIN))
    for name in ("p0", "d0"):
        story.tell(InstanceUp(name, KINDS[name]))
    for number in range(EJECT_FAILURES - 1):
        story.tell(Arrive(number, 100))
        while not isinstance(story.tell(Failed(number, "p0"))[0], Lost):
            pass
    assert not story.policy.ejected("p0", story.now)
    for number in range(100, 100 + 2 * EJECT_FAILURES):
        story.tell(Arrive(number, 100))
        story.tell(Failed(number, "p0", busy=True))
    assert not story.policy.ejected("p0", story.now)
    story.tell(Arrive("last", 100))
    assert Ejected("p0", EJECTIONS.after(1), EJECT_FAILURES) in story.tell(Failed("last", "p0"))


def test_where_all_are_ejected_all_are_asked() -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    for number in range(30):
        served_by(story, number, set(KINDS))
    assert all(story.policy.ejected(name, story.now) for name in PREFILLS)
    placed = [story.tell(Arrive(number, 100))[0] for number in range(100, 103)]
    assert {one.prefill for one in placed} == set(PREFILLS)
    story.tell(PrefillDone(100))
    assert [name for name in PREFILLS if not story.policy.ejected(name, story.now)] == [placed[0].prefill]
    assert {story.tell(Arrive(number, 100))[0].prefill for number in range(200, 210)} == {placed[0].prefill}


def test_what_ends_well_that_was_begun_before_says_nothing() -> None:
    story = started(placement=Placement.ROUND_ROBIN)
    before = []
    for number in range(9):
        (placed,) = story.tell(Arrive(number, 100))
        story.tell(PrefillDone(number))
        if placed.decode == "d0":
            before.append(number)
    story.now += 1.0
    number, failures = 100, 0
    while not story.policy.ejected("d0", story.now):
        number += 1
        failures += served_by(story, number, {"d0"}).count("d0")
        if before and failures:
            story.tell(Finish(before.pop(), 10))
    assert not before
    assert failures == EJECT_FAILURES
