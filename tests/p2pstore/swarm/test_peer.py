"""A peer's window is full with so many requests or bytes, the sooner the more peers there are; faults make it rest."""

from __future__ import annotations

import pytest

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import FEW_CONNECTIONS, FetchFault, PeerAdded
from p2pstore.swarm.peer import BACKOFF_SECONDS, FAULTS_ALLOWED, MAX_BACKOFF_SECONDS, MAX_REQUESTS, Peer, Share
from tests.p2pstore.swarm.planners import KIB, MIB, bits, planner


@pytest.mark.parametrize(("length", "requests"), [(64 * MIB, 2 * FEW_CONNECTIONS), (MIB, 8), (600 * KIB, 14)])
def test_windows(length: int, requests: int) -> None:
    actions = planner(300, length).handle(PeerAdded("p", Bitmap(300, full=True)))
    assert len(actions) == requests


@pytest.mark.parametrize("connections", [1, 2, 4, 8, 12, 32])
def test_each_connection_of_the_only_peer_has_one_on_the_wire_and_one_to_follow(connections: int) -> None:
    """With four in all, as it was once, three of eight worked; with sixteen, eight of sixteen may have had them all."""
    actions = planner(300, 64 * MIB).handle(PeerAdded("p", Bitmap(300, full=True), connections=connections))
    assert len(actions) == 2 * connections


@pytest.mark.parametrize(
    ("peers", "requests"),
    [(1, (4, 8, 16)), (2, (4, 8, 8)), (4, (4, 4, 7)), (8, (2, 3, 7)), (16, (1, 3, 7)), (40, (1, 3, 7))],
)
def test_the_more_peers_the_less_is_asked_of_each(peers: int, requests: tuple[int, ...]) -> None:
    share = Share.among(peers)
    assert tuple(share.requests_over(connections) for connections in (2, 4, 8)) == requests
    assert share.requests_over(1) in {1, 2}, "never none"


def test_the_window_of_requests_is_bounded_however_small_they_are() -> None:
    # Every other chunk is missing at the peer, so that no two can be fetched in one run.
    actions = planner(1000, 1).handle(PeerAdded("p", bits(1000, range(0, 1000, 2))))
    assert len(actions) == MAX_REQUESTS


def a_peer() -> Peer:
    return Peer("p", Bitmap(4, full=True), 0, origin=True)


def test_faults_in_a_row_make_it_rest_longer_and_then_end_it() -> None:
    peer = a_peer()
    pauses = []
    for _ in range(FAULTS_ALLOWED):
        assert not peer.failed(FetchFault.LOST, 10.0)
        pauses.append(peer.not_before - 10.0)
        assert peer.rests(10.0)
        assert not peer.rests(peer.not_before)
    assert pauses[:3] == [BACKOFF_SECONDS, 2 * BACKOFF_SECONDS, 4 * BACKOFF_SECONDS]
    assert max(pauses) == MAX_BACKOFF_SECONDS
    peer.brought()
    assert not peer.failed(FetchFault.LOST, 20.0), "what it brought forgives"
    assert [peer.failed(FetchFault.LOST, 20.0) for _ in range(FAULTS_ALLOWED)][-1]


@pytest.mark.parametrize("fault", [FetchFault.CORRUPT, FetchFault.GONE])
def test_some_faults_end_it_at_once(fault: FetchFault) -> None:
    assert a_peer().failed(fault, 0.0)


def test_who_is_slow_is_not_at_fault_and_rests_while_something_is_in_flight() -> None:
    peer = a_peer()
    assert not any(peer.failed(FetchFault.SLOW, 0.0) for _ in range(10 * FAULTS_ALLOWED))
    assert peer.rests(0.0)
    assert not peer.rests(BACKOFF_SECONDS)
    peer.in_flight[0] = range(1)
    assert peer.rests(BACKOFF_SECONDS)
    peer.brought()
    assert not peer.rests(BACKOFF_SECONDS)
    assert not peer.failed(FetchFault.UNTRIED, 1.0)
    assert (peer.faults, peer.rests(1.0)) == (0, False)
