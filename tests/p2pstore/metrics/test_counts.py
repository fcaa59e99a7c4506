from __future__ import annotations

import asyncio

import pytest

from p2pstore.metrics.counts import MAX_PEERS, Counts, Operation
from tests.clocks import Clock


def test_each_outcome_is_there_from_the_start() -> None:
    assert Operation().finished == {("ok",): 0, ("failed",): 0, ("cancelled",): 0}


@pytest.mark.parametrize(
    ("error", "outcome"), [(ValueError, "failed"), (asyncio.CancelledError, "cancelled"), (SystemExit, "failed")]
)
def test_what_ends_otherwise_than_well(error: type[BaseException], outcome: str) -> None:
    operation = Operation()

    def end() -> None:
        with operation.one():
            assert (operation.started, operation.ended) == (1, 0)
            raise error

    with pytest.raises(error):
        end()
    assert operation.finished[(outcome,)] == 1
    assert (operation.started, operation.ended) == (1, 1)
    assert sum(operation.seconds.counts) == 0


def test_how_long_it_took() -> None:
    clock = Clock()
    operation = Operation(clock)
    with operation.one():
        clock.now += 4.0
    assert operation.finished[("ok",)] == 1
    assert operation.seconds.total == 4.0
    assert dict(operation.seconds.buckets())["5.0"] == 1
    assert dict(operation.seconds.buckets())["1.0"] == 0


def test_peers_that_were_silent_for_longest_are_forgotten() -> None:
    counts = Counts()
    for number in range(MAX_PEERS):
        counts.came_from(str(number), 1)
    counts.came_from("0", 5)
    counts.came_from("new", 7)
    assert len(counts.by_peer) == MAX_PEERS
    assert (counts.by_peer["0"], counts.by_peer["new"]) == (6, 7)
    assert "1" not in counts.by_peer
    assert list(counts.by_peer)[-2:] == ["0", "new"]
