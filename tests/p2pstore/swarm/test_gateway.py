"""In each zone one getter fetches from abroad, whatever order claims come in and whoever leaves."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.swarm.gateway import (
    LONELY_SECONDS,
    MAX_TERM,
    SETTLE_SECONDS,
    SHARES,
    Claim,
    Gateway,
    Gateways,
    Rank,
    share_of_each,
)
from p2pstore.swarm.rarity import RUN_BYTES


class Zone:
    """Getters of one zone that all get from each other; what they say is heard in any order between two of them."""

    def __init__(self, count: int, seed: int, guests: set[int]) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.getters = {str(n): Gateway(0, random.Random(seed + n), seeds=n not in guests) for n in range(count)}
        self.guests = {str(n) for n in guests}
        self.said: dict[tuple[str, str], list[Claim]] = {}
        self.told: dict[str, Claim] = {}
        for name, getter in self.getters.items():
            for other in self.getters.keys() - {name} - self.guests:
                getter.near(other, whole=False)
        self.look()

    def look(self) -> None:
        """What is known newly is said."""
        for name in self.getters.keys() - self.guests:
            claim = self.getters[name].claim
            if self.told.get(name) != claim:
                self.told[name] = claim
                for other in self.getters.keys() - {name}:
                    self.said.setdefault((name, other), []).append(claim)

    def hear(self) -> bool:
        """One of the words that are on their way is heard; False for none."""
        waiting = sorted(pair for pair, claims in self.said.items() if claims)
        if not waiting:
            return False
        speaker, listener = self.random.choice(waiting)
        self.getters[listener].heard(speaker, self.said[speaker, listener].pop(0))
        self.look()
        return True

    def leave(self, name: str) -> None:
        del self.getters[name]
        self.said = {pair: claims for pair, claims in self.said.items() if name not in pair}
        for getter in self.getters.values():
            getter.gone(name)
        self.look()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for getter in self.getters.values():
            getter.pass_time(self.now)
        self.look()

    def settle(self) -> None:
        for seconds in (0.0, 2 * SETTLE_SECONDS):
            self.pass_time(seconds)
            while self.hear():
                pass

    @property
    def open(self) -> list[str]:
        return [name for name, getter in self.getters.items() if getter.open]


STEPS = st.lists(st.sampled_from(["hear", "hear", "hear", "leave", "time", "hungry", "settle"]), max_size=25)


@given(st.integers(1, 6), st.integers(0, 1 << 16), st.sets(st.integers(0, 5), max_size=2), STEPS)
def test_one_of_a_zone_fetches_from_abroad(count: int, seed: int, guests: set[int], steps: list[str]) -> None:
    guests = {n for n in guests if n < count - 1}  # somebody passes on what comes
    zone = Zone(count, seed, guests)
    for step in steps:
        name = zone.random.choice(sorted(zone.getters))
        if step == "leave" and zone.getters.keys() - zone.guests - {name}:
            zone.leave(name)
        elif step == "hungry":
            zone.getters[name].hungry()
            zone.look()
        elif step == "time":
            zone.pass_time(zone.random.choice([0.0, 0.1, SETTLE_SECONDS]))
        elif step == "settle":
            zone.settle()
        else:
            zone.hear()
    zone.settle()
    if not set(zone.open) - zone.guests:  # the gateway left before it was known as such: somebody gets hungry
        zone.getters[min(zone.getters.keys() - zone.guests)].hungry()
        zone.settle()
    assert len(set(zone.open) - zone.guests) == 1
    # A guest does not hear again of one who begins no new term, because it had not heard of the one that left.
    assert not zone.guests.intersection(zone.open) or "leave" in steps
    newcomer = Gateway(0, random.Random(seed))
    newcomer.pass_time(zone.now)
    for name in zone.getters.keys() - zone.guests:
        newcomer.near(name, whole=False)
        newcomer.heard(name, zone.getters[name].claim)
    newcomer.pass_time(zone.now + 2 * SETTLE_SECONDS)
    assert not newcomer.open, "who came first stays"


@given(st.integers(2, 6), st.integers(0, 1 << 16))
def test_another_takes_the_place_of_a_gateway_that_leaves(count: int, seed: int) -> None:
    zone = Zone(count, seed, set())
    while len(zone.getters) > 1:
        zone.settle()
        (before,) = zone.open
        zone.leave(before)
        assert zone.open == [] or len(zone.getters) == 1, "an election comes first"
    zone.settle()
    assert len(zone.open) == 1


def test_nobody_does_where_somebody_has_everything() -> None:
    zone = Zone(4, 1, set())
    zone.settle()
    assert len(zone.open) == 1
    zone.getters["2"].near("seed", whole=True)
    zone.look()
    zone.settle()
    assert zone.open == []
    zone.getters["2"].gone("seed")
    zone.look()
    assert zone.open == []
    zone.settle()
    assert len(zone.open) == 1


def test_who_is_alone_in_its_zone_fetches_at_once() -> None:
    alone = Gateway(0, random.Random(1), seeds=False)
    assert alone.open
    alone.near("other", whole=False)
    assert not alone.open
    alone.gone("other")
    assert alone.open


def test_one_who_passes_nothing_on_fetches_where_nobody_claims() -> None:
    """Those of an earlier version say nothing."""
    guest = Gateway(0, random.Random(1), seeds=False)
    guest.near("old", whole=False)
    guest.pass_time(0.0)
    assert not guest.open
    guest.pass_time(SETTLE_SECONDS)
    assert guest.open
    assert guest.claim.rank == Rank.GUEST


def test_strangers_are_not_heard_and_terms_do_not_run_away() -> None:
    made = Gateway(0, random.Random(1))
    claim = made.claim
    made.heard("stranger", Claim(0, 5, Rank.ACTING, 1, own=True))
    assert made.claim == claim
    made.near("peer", whole=False)
    made.heard("peer", Claim(0, MAX_TERM - 1, Rank.ACTING, 1, own=True))
    made.gone("peer")
    assert made.claim.term == MAX_TERM - 1


def test_claims_that_feed_nobody_starve_nobody() -> None:
    """A peer that claims each next term, and brings nothing."""
    made = Gateway(0, random.Random(1))
    made.near("liar", whole=False)
    for seconds in range(2 + int(LONELY_SECONDS)):
        made.pass_time(float(seconds))
        made.heard("liar", Claim(0, min(made.claim.term + 1, MAX_TERM - 1), Rank.WHOLE, 0, own=True))
        if made.open:
            break
        assert not made.claim.own
        made.hungry()
    assert made.open
    assert made.claim.own


@pytest.mark.parametrize("seeds", [False, True])
def test_one_that_has_everything_and_gives_nothing_starves_nobody(seeds: bool) -> None:
    made = Gateway(0, random.Random(1), seeds=seeds)
    made.pass_time(0.0)
    made.near("miser", whole=True)
    made.hungry()
    made.pass_time(LONELY_SECONDS / 2)
    made.hungry()
    assert not made.open
    made.fed()
    made.pass_time(LONELY_SECONDS)
    made.hungry()
    assert not made.open, "something has come since"
    made.pass_time(2 * LONELY_SECONDS)
    made.hungry()
    assert made.open


def test_a_gateway_that_begins_anew_is_one_no_more() -> None:
    made = Gateway(0, random.Random(1))
    made.near("again", whole=False)
    acting = Claim(0, 0, Rank.ACTING, 5, own=True)
    made.heard("again", acting)
    made.heard("again", acting)
    assert made.claim == replace(acting, own=False), "said twice it is the same"
    made.heard("again", Claim(0, 0, Rank.CANDIDATE, 9, own=True))
    assert made.claim.term == 1
    assert made.claim.own


@pytest.mark.parametrize("better", [{"term": 4}, {"rank": Rank.WHOLE}, {"token": 6}])
def test_which_claim_stands(better: dict[str, int]) -> None:
    one = Claim(0, 3, Rank.ACTING, 7)
    other = replace(one, **better)  # type: ignore[arg-type]
    assert other.beats(one)
    assert not one.beats(other)
    assert not one.beats(replace(one, own=True))


def test_each_share_has_a_gateway_of_its_own() -> None:
    made = [Gateways(random.Random(seed)) for seed in range(20)]
    for one in made:
        one.pass_time(0.0)
        for number, other in enumerate(made):
            if other is not one:
                one.near(str(number), whole=False)
    for number, speaker in enumerate(made):
        for one in made:
            for claim in speaker.claims:
                one.heard(str(number), claim)
    for one in made:
        one.pass_time(2 * SETTLE_SECONDS)
    opened = [share for one in made for share in one.open]
    assert sorted(opened) == list(range(SHARES))
    assert len([one for one in made if one.open]) > 1
    made[0].hungry()
    for number, speaker in enumerate(made[1:], 1):
        speaker.gone("0")
        made[0].gone(str(number))
    assert made[0].open == set(range(SHARES)), "it is alone"


@given(st.lists(st.sampled_from([0, 1, 1 << 19, 1 << 20, 1 << 26]), max_size=50))
def test_what_makes_one_run_is_one_share(lengths: list[int]) -> None:
    shares = share_of_each(lengths)
    assert len(shares) == len(lengths)
    total, run = 0, 0
    for share, length in zip(shares, lengths, strict=True):
        if total and total + length > RUN_BYTES:
            total, run = 0, run + 1
        total += length
        assert share == run % SHARES
