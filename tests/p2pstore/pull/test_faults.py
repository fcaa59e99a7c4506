"""The latest fault that still stands is the one that is told."""

from __future__ import annotations

from p2pstore.errors import PeerUnreachable
from p2pstore.pull.faults import Faults


def fault(peer: str) -> PeerUnreachable:
    return PeerUnreachable(peer=peer, detail="connection refused")


def test_the_latest_is_told() -> None:
    faults = Faults()
    assert faults.last is None
    first, second, third = fault("a"), fault("b"), fault("a")
    faults.add("a", first)
    faults.add("b", second)
    assert faults.last is second
    faults.add("a", third)
    assert faults.last is third


def test_one_that_does_better_leaves_those_of_others() -> None:
    faults = Faults()
    first, second = fault("a"), fault("b")
    faults.add("a", first)
    faults.add("b", second)
    faults.clear("b")
    assert faults.last is first
    assert faults.of("a") is first
    assert faults.of("b") is None
    faults.clear("a")
    faults.clear("never failed")
    assert faults.last is None
