"""A peer's window is full with so many requests or bytes, the sooner the more peers there are."""

from __future__ import annotations

import pytest

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import (
    PeerAdded,
)
from p2pstore.swarm.peer import MAX_REQUESTS, MOST_EACH
from tests.p2pstore.swarm.planners import KIB, MIB, bits, planner


@pytest.mark.parametrize(("length", "requests"), [(64 * MIB, MOST_EACH), (MIB, 8), (600 * KIB, 14)])
def test_windows(length: int, requests: int) -> None:
    actions = planner(300, length).handle(PeerAdded("p", Bitmap(300, full=True)))
    assert len(actions) == requests


def test_the_window_of_requests_is_bounded_however_small_they_are() -> None:
    # Every other chunk is missing at the peer, so that no two can be fetched in one run.
    actions = planner(1000, 1).handle(PeerAdded("p", bits(1000, range(0, 1000, 2))))
    assert len(actions) == MAX_REQUESTS
