"""A shared origin is asked for what it offers, and for more only by who would go hungry."""

from __future__ import annotations

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import Action, Ask, Failed, Fetch, Fetched, FetchFault, Offered, PeerAdded, PeerShared, Tick
from p2pstore.swarm.peer import MOST_EACH
from p2pstore.swarm.planner import BACKOFF_SECONDS, HUNGRY, HUNGRY_SECONDS, OFFERS
from tests.p2pstore.swarm.planners import MIB, bits, fetched, planner


def asks(actions: list[Action]) -> list[Ask]:
    return [a for a in actions if isinstance(a, Ask)]


def test_a_shared_origin_is_asked_for_what_it_offers() -> None:
    made = planner(100)
    actions = made.handle(PeerAdded("origin", Bitmap(100, full=True), shared=True))
    assert actions == [Ask("origin", OFFERS, ())]
    assert made.handle(Tick(1.0)) == [], "it is asked once"
    actions = made.handle(Offered("origin", [range(7, 8), range(9, 10)], over=False))
    assert fetched(actions) == [7, 9]
    assert asks(actions) == []
    actions = made.handle(Fetched("origin", range(7, 8), 1.1))
    assert actions == [Ask("origin", 1, (range(7, 8),))], "and again when an offer has arrived, which it is told"


def test_an_offer_of_what_a_getter_has_is_left_to_that_getter() -> None:
    made = planner(100, 64 * MIB)
    made.handle(PeerAdded("getter", bits(100, range(8))))
    made.handle(PeerAdded("origin", Bitmap(100, full=True), shared=True))
    actions = made.handle(Offered("origin", [range(7, 8), range(9, 10)], over=False))
    assert fetched(actions) == [9]
    assert asks(actions) == [Ask("origin", 1, (range(7, 8),))]


def test_an_offer_that_failed_is_tried_again() -> None:
    made = planner(100)
    made.handle(PeerAdded("origin", Bitmap(100, full=True), shared=True))
    made.handle(Offered("origin", [range(7, 8)], over=False))
    made.handle(Failed("origin", range(7, 8), FetchFault.LOST, 1.0))
    assert fetched(made.handle(Tick(1.0 + BACKOFF_SECONDS))) == [7]


def test_an_origin_that_is_not_shared_any_more_is_asked_for_anything() -> None:
    made = planner(100)
    made.handle(PeerAdded("origin", Bitmap(100, full=True), shared=True))
    assert len(fetched(made.handle(PeerShared("origin", shared=False)))) >= MOST_EACH


def test_an_origin_hears_what_was_taken_before_it_was_shared() -> None:
    made = planner(100, 64 * MIB)
    taken = [a.run for a in made.handle(PeerAdded("origin", Bitmap(100, full=True))) if isinstance(a, Fetch)]
    assert taken
    assert made.handle(PeerShared("origin", shared=True)) == [Ask("origin", OFFERS, tuple(taken))]


def test_an_origin_with_nothing_left_to_offer_brings_what_others_have_too() -> None:
    made = planner(3, 64 * MIB)
    made.handle(PeerAdded("getter", bits(3, [])))
    made.handle(PeerAdded("origin", Bitmap(3, full=True), shared=True))
    assert made.handle(Offered("origin", [], over=True)) == [], "what no getter has is on its way to one"
    made.handle(PeerAdded("far", bits(3, [2])))
    assert made.handle(Failed("far", range(2, 3), FetchFault.LOST, 0.5)) == [Fetch("origin", range(2, 3))]


def test_who_is_hungry_for_long_asks_a_shared_origin_for_anything() -> None:
    made = planner(40, 64 * MIB)
    made.handle(PeerAdded("origin", Bitmap(40, full=True), shared=True))
    made.handle(Tick(1.0))
    assert fetched(made.handle(Tick(0.9 + HUNGRY_SECONDS))) == []
    actions = made.handle(Tick(1.0 + HUNGRY_SECONDS))
    assert len(fetched(actions)) >= HUNGRY
    assert fetched(made.handle(Tick(2.0 + HUNGRY_SECONDS))) == []
    first = fetched(actions)[0]
    more = made.handle(Fetched("origin", range(first, first + 1), 2.0 + HUNGRY_SECONDS))
    assert len(fetched(more)) == 1, "and goes on until others feed it"
