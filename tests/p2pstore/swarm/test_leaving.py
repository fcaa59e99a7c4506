"""What a peer that left may still write is asked of nobody else, and counts when it comes whole."""

from __future__ import annotations

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import (
    Closed,
    Drop,
    Failed,
    Fetch,
    Fetched,
    FetchFault,
    PeerAdded,
    PeerGone,
    PeerHas,
    Released,
    Tick,
)
from p2pstore.swarm.leaving import Leaving
from p2pstore.swarm.planner import (
    Planner,
)
from tests.p2pstore.swarm.planners import MIB, fetched, planner


def test_events_of_peers_that_are_not_there() -> None:
    made = planner(3)
    for event in (PeerHas("p", [1]), PeerGone("p"), Failed("p", range(1), FetchFault.CORRUPT, 1.0)):
        assert made.handle(event) == []
    assert made.handle(PeerAdded("p", Bitmap(3, full=True))) != []
    assert made.banned == set()


def test_a_run_that_comes_after_its_peer_left() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(PeerGone("p"))
    assert not made.done
    made.handle(Fetched("p", range(1)))
    assert made.done
    assert made.handle(PeerAdded("q", Bitmap(1, full=True))) == []


def test_a_late_failure_takes_nothing_from_another() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(PeerGone("p"))
    assert made.handle(PeerAdded("q", Bitmap(1, full=True))) == [Fetch("q", range(1))]
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    assert made.handle(Failed("p", range(1), FetchFault.LOST, 0.0)) == []
    assert made.active == 1


def test_what_comes_late_while_another_writes_the_same_place_does_not_count() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(PeerGone("p"))
    assert made.handle(PeerAdded("q", Bitmap(1, full=True))) == [Fetch("q", range(1))]
    made.handle(Fetched("p", range(1)))
    assert not made.done
    made.handle(Failed("q", range(1), FetchFault.LOST, 0.0))
    assert made.handle(Tick(100.0)) == [Fetch("q", range(1))]


def test_what_was_kept_of_a_failed_run_counts_though_its_peer_was_given_up() -> None:
    made = Planner([10] * 4, Bitmap(4), seed=1)
    made.handle(PeerAdded("p", Bitmap(4, full=True)))
    made.handle(PeerGone("p"))
    made.handle(Failed("p", range(4), FetchFault.LOST, 0.0, kept=3))
    assert list(made.had) == [0, 1, 2]
    assert fetched(made.handle(PeerAdded("q", Bitmap(4, full=True)))) == [3]


def test_what_a_closed_peer_writes_is_asked_of_another_only_when_it_is_released() -> None:
    """D4: the wait for a write that hangs is the planner's knowledge, and nobody's blocked thread."""
    made = planner(2, 64 * MIB)
    made.handle(PeerAdded("p", Bitmap(2, full=True)))
    actions = made.handle(Closed("p", [range(1)]))
    assert actions == []
    assert made.peers == ()
    assert fetched(made.handle(PeerAdded("q", Bitmap(2, full=True)))) == [1]
    made.handle(Fetched("q", range(1, 2), 1.0))
    assert made.active == 0
    assert not made.stuck, "what is being written may yet arrive"
    assert made.only_writes
    assert made.handle(Released("p", range(1))) == [Fetch("q", range(1))]
    assert not made.only_writes


def test_a_run_that_arrives_whole_from_a_closed_peer_counts() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(Closed("p", [range(1)]))
    assert made.handle(Fetched("p", range(1), 1.0)) == []
    assert made.done


def test_a_peer_that_comes_back_may_not_be_asked_for_what_it_still_writes() -> None:
    made = planner(2, 64 * MIB)
    made.handle(PeerAdded("p", Bitmap(2, full=True)))
    made.handle(Closed("p", [range(1)]))
    assert fetched(made.handle(PeerAdded("p", Bitmap(2, full=True)))) == [1]
    assert fetched(made.handle(Released("p", range(1)))) == [0]


def test_what_a_dropped_peer_had_in_flight_waits_until_it_is_closed() -> None:
    made = planner(2, 64 * MIB)
    made.handle(PeerAdded("p", Bitmap(2, full=True)))
    assert made.handle(PeerAdded("q", Bitmap(2, full=True))) == []
    actions = made.handle(Failed("p", range(1), FetchFault.GONE, 0.0))
    assert actions[0] == Drop("p", banned=False)
    assert fetched(actions) == [0], "what it reported lost is free, what else it has in flight is not"
    assert fetched(made.handle(Closed("p"))) == [1]


def test_who_was_dropped_is_closed_later_and_keeps_what_is_still_written() -> None:
    leaving = Leaving()
    leaving.drop("p", [range(3), range(5, 6)])
    assert (bool(leaving), leaving.writing) == (True, False)
    assert leaving.let_go("p", range(3))
    assert not leaving.let_go("p", range(3))
    assert leaving.answered("p") == [range(5, 6)]
    assert leaving.answered("p") is None, "who has that name now was not dropped"
    assert leaving.closed("p", [range(5, 6), range(7, 8)], [range(5, 6)]) == [range(7, 8)]
    assert leaving.writing
    assert leaving.gone("q") == []
    assert leaving.gone("p") == [range(5, 6)]
    assert not leaving
