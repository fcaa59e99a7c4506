"""A collection that takes long is the last that looks at what it leaves."""

from __future__ import annotations

import gc

from p2pstore.agent.garbage import LONG_SECONDS, Freezer


def collected(seconds: float) -> int:
    """How often a collection of so many seconds makes it freeze."""
    moments = iter([100.0, 100.0 + seconds])
    calls: list[bool] = []
    freezer = Freezer(lambda: next(moments), lambda: calls.append(True))
    freezer.watch("start", {"generation": 2})
    freezer.watch("stop", {"generation": 2})
    assert freezer.frozen == len(calls)
    return len(calls)


def test_a_short_collection_changes_nothing() -> None:
    assert collected(LONG_SECONDS / 2) == 0


def test_a_long_collection_freezes_what_it_left() -> None:
    assert collected(LONG_SECONDS * 2) == 1


def test_it_hears_of_the_interpreters_own_collections_until_it_stops() -> None:
    moments = iter(range(1000))
    calls: list[bool] = []
    freezer = Freezer(lambda: float(next(moments)), lambda: calls.append(True))
    freezer.start()
    try:
        gc.collect()
        assert calls
    finally:
        freezer.stop()
    heard = len(calls)
    gc.collect()
    assert len(calls) == heard
    freezer.stop()
