"""Whatever followers say and whenever they leave, no place is lost and none is given twice."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from p2pstore.swarm.granter import FIRST_PATIENCE_SECONDS, MIN_PATIENCE, PATIENCE, Grant, Granter
from p2pstore.swarm.pace import MAX_PLACES
from p2pstore.swarm.unsent import Unsent

CHUNKS = 6
FOLLOWERS = "abcde"
FETCHES = 256
PLACES = 3  # for so many


def granter(*, followers: str = "", origin: bool = False, seeds: bool = True) -> Granter:
    made = Granter(random.Random(1), lambda: Unsent([1 << 20] * CHUNKS), lambda: FETCHES)
    for key in followers:
        made.join(key, seeds=seeds, origin=origin)
    return made


class AnyFollowers(RuleBasedStateMachine):
    """Followers at their worst."""

    @initialize()
    def begin(self) -> None:
        self.granter = granter()
        self.now = 0.0
        self.given: dict[int, Grant] = {}
        self.untold: set[int] = set()  # of these, since which nobody was told of more
        self.there: set[str] = set()
        self.full: set[str] = set()  # may be granted nothing before they have said that they have room
        self.sated: set[str] = set()  # nor these, before they were told of more
        self.named: list[range] = []

    def look(self) -> None:
        for grant in self.granter.grants(self.now):
            assert grant.key in self.there, "only who follows is granted something"
            assert grant.key not in self.full | self.sated, "and not who declined"
            assert grant.number not in self.given
            self.given[grant.number] = grant
            self.untold.add(grant.number)
            if grant.run is not None:
                assert grant.run not in self.named, "what was named is not named again unless it came back"
                self.named.append(grant.run)
            self.full.add(grant.key)  # one at a time: the next when it says that it has room

    def over(self, grant: Grant, *, sent: bool) -> None:
        del self.given[grant.number]
        if not sent and grant.run in self.named:
            self.named.remove(grant.run)

    @rule(key=st.sampled_from(FOLLOWERS), seeds=st.booleans(), origin=st.booleans())
    def joins(self, key: str, seeds: bool, origin: bool) -> None:
        self.granter.join(key, seeds=seeds, origin=origin)
        self.there.add(key)
        self.look()

    @rule(key=st.sampled_from(FOLLOWERS))
    def leaves(self, key: str) -> None:
        self.granter.leave(key)
        self.there.discard(key)
        for each in (self.full, self.sated):
            each.discard(key)
        for grant in list(self.given.values()):
            if grant.key == key:
                self.over(grant, sent=False)
        if not self.there:
            self.named.clear()
        self.look()

    @rule(key=st.sampled_from(FOLLOWERS), under_way=st.integers(0, 3))
    def has_room(self, key: str, under_way: int) -> None:
        self.granter.opened(key, under_way)
        for each in (self.full, self.sated):
            each.discard(key)
        self.look()

    @rule(data=st.data(), full=st.booleans(), mine=st.booleans())
    def declines(self, data: st.DataObject, full: bool, mine: bool) -> None:
        if self.given:
            grant = data.draw(st.sampled_from(list(self.given.values())))
            key = grant.key if mine else data.draw(st.sampled_from(FOLLOWERS))
            known = key == grant.key
            self.granter.declined(key, grant.number, 1, self.now, full=full)
            if known:
                self.over(grant, sent=False)
                if not full and key in self.full:
                    self.full.remove(key)
                    if grant.number in self.untold:
                        self.sated.add(key)
            self.look()

    @rule(data=st.data(), full=st.booleans())
    def is_done(self, data: st.DataObject, full: bool) -> None:
        if self.given:
            grant = data.draw(st.sampled_from(list(self.given.values())))
            self.granter.done(grant.key, grant.number, 1, self.now, full=full)
            self.over(grant, sent=True)
            if not full:
                self.full.discard(grant.key)
                self.sated.discard(grant.key)
            self.granter.done(grant.key, grant.number, 1, self.now, full=full)  # twice is harmless
            self.look()

    @rule()
    def news(self) -> None:
        self.granter.told()
        self.sated.clear()
        self.untold.clear()
        self.look()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 5.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        due = self.granter.due
        assert due > self.now or due == math.inf
        self.now += seconds
        # What was named and does not come is named once more.
        self.named.clear()
        self.look()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "granter"):
            assert self.granter.under_way == len(self.given), "no grant is lost, and none leaks"
            assert len(self.granter._running) <= MAX_PLACES + MAX_PLACES // 3
            free = len(self.granter._running) < self.granter._places
            slow = {key for key in self.there if self.granter._followers[key].slow}
            ready = self.there - self.full - self.sated - slow
            assert not (free and ready), "no place is free while somebody has room"


TestAnyFollowers = AnyFollowers.TestCase
TestAnyFollowers.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_no_more_than_its_places_and_the_next_when_one_is_done() -> None:
    made = granter(followers=FOLLOWERS)
    first = made.grants(0.0)
    assert len({grant.key for grant in first}) == len(first) == PLACES
    assert made.grants(0.1) == []
    made.done(first[0].key, first[0].number, 1, 0.2, full=True)
    (grant,) = made.grants(0.2)
    assert grant.key not in {each.key for each in first}


def test_the_least_busy_come_first() -> None:
    made = granter()
    for key, under_way in zip(FOLLOWERS, (2, 0, 2, 1, 0), strict=True):
        made.join(key, seeds=True, origin=False)
        made.opened(key, under_way)
    assert [grant.key for grant in made.grants(0.0)][2] == "d"


def test_who_passes_nothing_on_comes_last_and_is_named_nothing() -> None:
    made = granter(followers="a", origin=True, seeds=False)
    for key in "bcd":
        made.join(key, seeds=True, origin=True)
    given = {grant.key: grant.run for grant in made.grants(0.0)}
    assert given.pop("a") is None
    assert len({run for run in given.values() if run}) == 3
    made = granter(followers="a", origin=False, seeds=False)
    for key in "bcde":
        made.join(key, seeds=True, origin=False)
    assert "a" not in {grant.key for grant in made.grants(0.0)}


def test_an_origin_names_each_chunk_once_and_then_leaves_the_choice() -> None:
    made = granter(followers="ab", origin=True)
    named: list[range | None] = []
    for now in range(CHUNKS + 2):
        grant = made.grants(now)[0]
        named.append(grant.run)
        made.done(grant.key, grant.number, 0, now, full=False)
    assert {run.start for run in named[:CHUNKS] if run} == set(range(CHUNKS)) - {
        grant.run.start for key in "ab" for grant in made.grants(9.0) if grant.key == key and grant.run
    } or len({run for run in named if run}) >= CHUNKS - 1
    assert named[-1] is None


def test_one_that_declines_while_it_is_told_of_more_is_granted_again() -> None:
    """It had not heard of that yet; it may be the last that there is to tell."""
    made = granter(followers="a")
    (grant,) = made.grants(0.0)
    made.told()
    made.declined("a", grant.number, 0, 0.1, full=False)
    (again,) = made.grants(0.1)
    made.declined("a", again.number, 0, 0.2, full=False)
    assert made.grants(0.2) == [], "until there is more"


def test_what_one_that_left_was_named_is_named_to_another() -> None:
    made = granter(followers="a", origin=True)
    (grant,) = made.grants(0.0)
    made.join("b", seeds=True, origin=True)
    (other,) = made.grants(0.0)
    made.leave("a")
    made.done("b", other.number, 0, 1.0, full=False)
    assert [each.run for each in made.grants(1.0)] == [grant.run]


def test_one_that_hangs_gives_its_place_to_another_and_its_chunk_too() -> None:
    made = granter(followers="ab", origin=True)
    hangs, quick = made.grants(0.0)
    made.done(quick.key, quick.number, 0, 1.0, full=True)
    for key in "cde":
        made.join(key, seeds=True, origin=True)
    others = made.grants(1.0)
    assert made.due == math.inf, "nobody waits"
    for grant in others:
        made.done(grant.key, grant.number, 0, 2.0, full=False)
    made.grants(2.0)
    assert made.due > 2.0 or made.due == math.inf
    late = PATIENCE * 1.0 + 0.1
    again = made.grants(late)
    assert hangs.run in {grant.run for grant in again} | {made._unsent.name() if made._unsent else None}
    made.opened(hangs.key, 0)
    assert hangs.key not in {grant.key for grant in made.grants(late)}, "it is granted nothing while it hangs"
    made.done(hangs.key, hangs.number, 0, late + 1, full=False)
    assert not made._followers[hangs.key].slow


@pytest.mark.parametrize("took", [None, 0.001])
def test_how_long_it_is_patient_at_first(took: float | None) -> None:
    made = granter(followers=FOLLOWERS)
    given = made.grants(0.0)
    expected = FIRST_PATIENCE_SECONDS
    if took is not None:
        made.done(given[0].key, given[0].number, 0, took, full=True)
        made.grants(took)
        expected = MIN_PATIENCE
    assert made.due == pytest.approx(expected, abs=0.01)


def lagging(*, origin: bool) -> Granter:
    """Of two followers "a" has just ended a fetch that took too long; both have room."""
    made = granter(followers="ab", origin=origin)
    given = {grant.key: grant for grant in made.grants(0.0)}
    made.done("b", given["b"].number, 0, 1.0, full=True)
    late = PATIENCE * 1.0 + 1.0
    made.grants(late)
    made.done("a", given["a"].number, 0, late, full=False)
    made.opened("b", 1)
    return made


def test_who_was_slow_is_granted_the_next_beside_the_places() -> None:
    made = lagging(origin=False)
    for key in "cde":
        made.join(key, seeds=True, origin=False)
    first = made.grants(4.0)
    assert first[0].key == "a"
    assert len(first) == 1 + PLACES
    made.opened("a", 0)
    assert made.grants(4.1) == [], "one at a time"
    made.done("a", first[0].number, 0, 4.2, full=True)
    made.done(first[1].key, first[1].number, 0, 4.2, full=True)
    made.opened("a", 0)
    (grant,) = made.grants(4.3)
    assert grant.key in FOLLOWERS
    assert len(made._running) == PLACES, "it was quick, and takes a place as others do"


def test_an_origin_sends_what_it_never_sent_to_who_was_slow_last() -> None:
    made = lagging(origin=True)
    made.join("c", seeds=True, origin=True)
    assert [grant.key for grant in made.grants(4.0)][-1] == "a"
    assert len(made._running) == 3


def test_who_was_slow_and_left_is_forgotten() -> None:
    made = lagging(origin=False)
    made.leave("a")
    assert [grant.key for grant in made.grants(4.0)] == ["b"]
    made.join("a", seeds=True, origin=False)
    assert [grant.key for grant in made.grants(4.0)] == ["a"]
    assert len(made._running) == 2
