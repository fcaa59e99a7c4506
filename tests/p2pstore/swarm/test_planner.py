"""The rarest chunk is asked of the nearest peer that has it, and of another when that one fails or is slow."""

from __future__ import annotations

import random

import pytest

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import (
    FEW_CONNECTIONS,
    Action,
    Cancel,
    Claims,
    Declined,
    Drop,
    Ending,
    Failed,
    Fetch,
    Fetched,
    FetchFault,
    Granted,
    Opened,
    PeerAdded,
    PeerClaims,
    PeerGone,
    PeerHas,
    PeerShared,
    Tick,
)
from p2pstore.swarm.gateway import ABROAD, SAME_ZONE, SETTLE_SECONDS, SHARES, Claim, Gateways, Rank
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.pace import MIN_PLACES
from p2pstore.swarm.peer import BACKOFF_SECONDS, FAULTS_ALLOWED
from p2pstore.swarm.planner import Planner
from p2pstore.swarm.rarity import RUN_BYTES
from p2pstore.swarm.run_times import (
    LONG_RUN_BYTES,
    MIN_LAST_PATIENCE,
    MIN_PATIENCE,
    QUICK_RUN_SECONDS,
    SLOW_RUN_SECONDS,
)
from tests.p2pstore.swarm.planners import MIB, bits, fetched, planner


def test_nothing_to_do() -> None:
    empty = Planner([], Bitmap(0))
    assert empty.done
    assert not empty.stuck
    assert empty.handle(PeerAdded("p", Bitmap(0))) == []


def test_without_peers_it_is_stuck() -> None:
    assert planner(1).stuck


def test_rarest_first() -> None:
    drawn = {chunk for seed in range(50) for chunk in draw_first(seed)}
    assert {0, 1} <= drawn
    assert sum(draw_first(seed)[0] in {0, 1} for seed in range(50)) > 25  # 8 draws of 20 hit one of two in 68 of 100


def draw_first(seed: int) -> list[int]:
    """What is asked first of a getter that has 20 chunks, 18 of which two others have as well."""
    made = Planner([64 * MIB] * 20, Bitmap(20), seed=seed)
    made.handle(PeerAdded("getter", bits(20, [])))
    for name in ("common", "too"):
        made.handle(PeerAdded(name, bits(20, [])))
        made._missing.spread(range(2, 20), 1)
    return fetched(made.handle(PeerHas("getter", range(20))))[:1]


def test_chunks_of_peers_that_left_are_rare_again() -> None:
    made = planner(3)
    made.handle(PeerAdded("leaves", bits(3, [0, 1])))
    assert made._missing._spread == [1, 1, 0]
    made.handle(PeerGone("leaves"))
    assert made._missing._spread == [0, 0, 0]


def test_ties_are_random() -> None:
    firsts = {
        str(Planner([MIB] * 50, Bitmap(50), seed=n).handle(PeerAdded("p", Bitmap(50, full=True)))[0]) for n in range(20)
    }
    assert len(firsts) > 5


def test_the_nearest_peer_is_asked_first() -> None:
    made = planner(1)
    made.handle(PeerAdded("first", Bitmap(1, full=True)))
    for name, distance in (("far", 2), ("near", 0), ("zone", 1)):
        assert made.handle(PeerAdded(name, Bitmap(1, full=True), distance)) == []
    assert made.handle(PeerGone("first")) == [Fetch("near", range(1))]


def test_small_adjacent_chunks_come_in_one_run() -> None:
    made = Planner([10] * 1000, Bitmap(1000), seed=3)
    actions = made.handle(PeerAdded("p", Bitmap(1000, full=True)))
    assert len(actions) == 1
    assert fetched(actions) == list(range(1000))


def run_lengths(seconds: float, *, getter: bool) -> list[int]:
    """Bytes of each run of an object of 1 MiB chunks, when runs take that long each."""
    planner = Planner([MIB] * 500, Bitmap(500), seed=1)
    asked = planner.handle(PeerAdded("origin", bits(500, range(500))))
    if getter:
        asked += planner.handle(PeerAdded("getter", bits(500, [])))
    now, sizes = 0.0, []
    while asked:
        fetch = asked.pop(0)
        assert isinstance(fetch, Fetch)
        sizes.append(len(fetch.run) * MIB)
        now += seconds / (2 * FEW_CONNECTIONS)
        asked += planner.handle(Fetched(fetch.peer, fetch.run, now))
    return sizes


def test_runs_grow_while_they_are_quick() -> None:
    sizes = run_lengths(QUICK_RUN_SECONDS / 2, getter=False)
    assert sizes[0] == RUN_BYTES
    assert LONG_RUN_BYTES // 2 < max(sizes) <= LONG_RUN_BYTES


def test_runs_stay_short_over_a_slow_network() -> None:
    assert set(run_lengths(2 * SLOW_RUN_SECONDS, getter=False)) == {RUN_BYTES}


def test_runs_stay_short_where_getters_wait_for_them() -> None:
    assert set(run_lengths(QUICK_RUN_SECONDS / 2, getter=True)) == {RUN_BYTES}


def test_backoff_doubles_and_a_success_forgives() -> None:
    made = planner(10)
    made.handle(PeerAdded("p", Bitmap(10, full=True)))
    now = 0.0
    for fault in range(FAULTS_ALLOWED):
        run = next(iter(made._peers["p"].in_flight.values()))
        for other in list(made._peers["p"].in_flight.values()):
            if other != run:
                made.handle(Failed("p", other, FetchFault.UNTRIED, now))
        assert made.handle(Failed("p", run, FetchFault.LOST, now)) == []
        pause = BACKOFF_SECONDS * 2**fault
        assert made.handle(Tick(now + pause - 0.01)) == []
        assert not made.stuck
        now += pause
        assert made.handle(Tick(now)) != []
    run = next(iter(made._peers["p"].in_flight.values()))
    made.handle(Fetched("p", run))
    run = next(iter(made._peers["p"].in_flight.values()))
    assert Drop("p", banned=False) not in made.handle(Failed("p", run, FetchFault.LOST, now))


def test_a_clock_that_goes_back_is_ignored() -> None:
    made = planner(2)
    made.handle(PeerAdded("p", bits(2, [0])))
    made.handle(Failed("p", range(1), FetchFault.LOST, 100.0))
    assert made.handle(Tick(1.0)) == []
    assert made.handle(Tick(100.0 + BACKOFF_SECONDS)) == [Fetch("p", range(1))]


def test_a_late_run_is_not_taken_for_the_one_that_begins_at_the_same_chunk() -> None:
    made = Planner([10] * 4, Bitmap(4), seed=1)
    assert fetched(made.handle(PeerAdded("p", bits(4, [0, 1])))) == [0, 1]
    made.handle(PeerGone("p"))
    assert fetched(made.handle(PeerAdded("p", Bitmap(4, full=True)))) == [0, 1, 2, 3]
    made.handle(Fetched("p", range(2)))
    assert not made.stuck
    assert not made.done
    assert fetched(made.handle(Failed("p", range(4), FetchFault.UNTRIED, 0.0))) == [0, 1, 2, 3]


def test_a_slow_run_is_taken_away_when_another_has_it() -> None:
    made = planner(40, 64 * MIB)
    first = made.handle(PeerAdded("quick", Bitmap(40, full=True)))
    slow = made.handle(PeerAdded("slow", Bitmap(40, full=True)))
    assert [a.peer for a in slow if isinstance(a, Fetch)] == ["slow"] * 2 * FEW_CONNECTIONS
    stuck = next(a.run for a in slow if isinstance(a, Fetch))
    waiting = [a.run for a in first if isinstance(a, Fetch)]
    now = 0.0
    while now < 20.0:
        now += 0.5
        run = waiting.pop(0)
        waiting += [a.run for a in made.handle(Fetched("quick", run, now)) if isinstance(a, Fetch)]
        cancelled = [a for a in made.handle(Tick(now)) if isinstance(a, Cancel)]
        if cancelled:
            break
    assert Cancel("slow", stuck) in cancelled
    assert now > MIN_PATIENCE
    assert made.handle(Tick(now + 1)) == [], "it is cancelled once"
    made.handle(Failed("slow", stuck, FetchFault.SLOW, now))
    assert fetched(made.handle(Tick(now + 100))) == [], "the slow peer has others in flight, and gets no more"


@pytest.mark.parametrize("had", [[2], []], ids=["nothing else is missing", "something is"])
def test_the_last_run_is_taken_away_sooner(had: list[int]) -> None:
    made = Planner([64 * MIB] * 3, bits(3, had), seed=1)
    made.handle(PeerAdded("slow", bits(3, [1]), grants=True))
    made.handle(PeerAdded("quick", bits(3, [0]), grants=True))
    assert fetched(made.handle(Granted(Grant("slow", 1, None), 0.0))) == [1]
    assert fetched(made.handle(Granted(Grant("quick", 1, None), 0.0))) == [0]
    made.handle(Fetched("quick", range(1), 0.1))
    made.handle(PeerHas("quick", [1]))
    assert not [a for a in made.handle(Tick(MIN_LAST_PATIENCE)) if isinstance(a, Cancel)]
    cancelled = [a for a in made.handle(Tick(MIN_LAST_PATIENCE + 0.1)) if isinstance(a, Cancel)]
    assert cancelled == ([Cancel("slow", range(1, 2))] if had else [])


def test_the_only_one_who_has_it_may_take_as_long_as_it_takes() -> None:
    made = planner(3)
    made.handle(PeerAdded("only", Bitmap(3, full=True)))
    made.handle(Fetched("only", range(1), 0.1))
    assert made.handle(Tick(1000.0)) == []


def test_what_was_taken_from_slow_peers_goes_to_one_that_is_not_however_far() -> None:
    """Two that are slow gave a run to one another for ever, on a slow link, while a third was idle."""
    made = planner(1)
    for peer, distance in [("near", 1), ("other", 1), ("far", 2)]:
        actions = made.handle(PeerAdded(peer, Bitmap(1, full=True), distance))
        assert [a.peer for a in actions if isinstance(a, Fetch)] == (["near"] if peer == "near" else [])
    assert made.handle(Failed("near", range(1), FetchFault.SLOW, 10.0)) == [Fetch("other", range(1))]
    assert made.handle(Failed("other", range(1), FetchFault.SLOW, 20.0)) == [Fetch("far", range(1))]


def zoned(count: int, *near: str) -> Planner:
    """One in a zone, with these near it and a seed abroad, which is shared."""
    made = Planner([MIB] * count, Bitmap(count), seed=1, gateways=Gateways(random.Random(1)))
    for name in near:
        made.handle(PeerAdded(name, Bitmap(count), SAME_ZONE, grants=True))
    made.handle(PeerAdded("abroad", Bitmap(count, full=True), ABROAD, shared=True, grants=True))
    made.handle(Tick(0.0))
    return made


def abroad(number: int) -> Granted:
    return Granted(Grant("abroad", number, None, window=3), 0.0)


def others_claim(made: Planner, *shares: int) -> list[Action]:
    """One near is the gateway of these shares."""
    return [a for share in shares for a in made.handle(PeerClaims("near", Claim(share, 7, Rank.ACTING, 1, own=True)))]


def test_only_a_gateway_fetches_from_abroad_and_its_share_alone() -> None:
    made = zoned(2 * SHARES, "near")
    assert made.handle(abroad(1)) == [Declined("abroad", 1, 0, full=True)], "another may be it"
    actions = made.handle(Tick(SETTLE_SECONDS))
    assert Opened("abroad", 0) in actions
    assert [a.claim.rank for a in actions if isinstance(a, Claims)] == [Rank.ACTING] * SHARES
    told = others_claim(made, *range(1, SHARES))
    assert [(a.claim.share, a.claim.own) for a in told if isinstance(a, Claims)] == [(1, False), (2, False), (3, False)]
    assert {*fetched(made.handle(abroad(2))), *fetched(made.handle(abroad(3)))} == {0, SHARES}
    assert made.handle(abroad(4)) == [Declined("abroad", 4, 2, full=False)]
    others_claim(made, 0)
    assert made.handle(abroad(5)) == [Declined("abroad", 5, 2, full=True)]
    made.handle(PeerGone("near"))
    assert fetched(made.handle(abroad(6))) != [], "it is alone now"


def test_a_gateway_fetches_nothing_from_abroad_that_one_near_has() -> None:
    made = zoned(3, "near")
    made.handle(PeerHas("near", [0, 1]))
    made.handle(Tick(SETTLE_SECONDS))
    assert fetched(made.handle(abroad(1))) == [2]
    assert made.handle(abroad(2)) == [Declined("abroad", 2, 1, full=False)]
    assert fetched(made.handle(Granted(Grant("near", 1, None), 0.0))) in ([0], [1])
    actions = made.handle(PeerGone("near"))
    assert Opened("abroad", 1) in actions
    assert fetched(made.handle(abroad(3))) in ([0], [1])


def test_the_hungry_have_gateways_elected_anew_and_wait_for_that() -> None:
    made = zoned(2, "near")
    others_claim(made, *range(SHARES))
    terms = [
        action.claim.term
        for tenth in range(1, 250)
        for action in made.handle(Tick(tenth / 10))
        if isinstance(action, Claims) and action.claim.rank == Rank.CANDIDATE
    ]
    assert terms == [8] * SHARES, "then it is the gateway itself"


def test_what_a_slow_one_near_has_on_its_way_is_not_left_to_one_abroad() -> None:
    made = zoned(1, "near")
    others_claim(made, *range(SHARES))
    made.handle(PeerHas("near", [0]))
    assert fetched(made.handle(Granted(Grant("near", 1, None), 0.0))) == [0]
    for now in range(1, 100):
        assert made.handle(Tick(float(now))) == []


def test_a_zone_without_anybody_else_is_no_obstacle() -> None:
    made = zoned(2)
    assert not made.stuck
    assert fetched(made.handle(abroad(1))) != []
    made.handle(PeerShared("abroad", shared=False))
    assert made.active == 1


def test_a_peer_that_rests_keeps_nobody_else_from_hearing_of_room() -> None:
    made = planner(12)
    for peer in ("quick", "other", "rests"):
        made.handle(PeerAdded(peer, bits(12, range(11)), grants=True))
    (first,) = made.handle(Granted(Grant("rests", 1, None)))
    assert isinstance(first, Fetch)
    made.handle(Failed("rests", first.run, FetchFault.LOST, 0.0))
    (taken, *_) = (made.handle(Granted(Grant("quick", n, None))) for n in range(MIN_PLACES))
    for peer in ("other", "rests"):
        (declined,) = made.handle(Granted(Grant(peer, 2, None)))
        assert isinstance(declined, Declined)
        assert declined.full
    (fetch,) = taken
    assert isinstance(fetch, Fetch)
    assert Opened("other", MIN_PLACES - 1) in made.handle(Ending("quick", fetch.run))
