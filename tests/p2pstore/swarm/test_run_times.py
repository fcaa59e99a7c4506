"""When a run is too slow, and how long runs are, follow from those that came."""

from __future__ import annotations

import math

from p2pstore.swarm.rarity import RUN_BYTES
from p2pstore.swarm.run_times import (
    LAST_PATIENCE,
    LONG_RUN_BYTES,
    MIN_LAST_PATIENCE,
    MIN_PATIENCE,
    PATIENCE,
    QUICK_RUN_SECONDS,
    SLOW_RUN_SECONDS,
    RunTimes,
)


def test_nothing_is_slow_before_something_was_timed() -> None:
    assert RunTimes().limits(last=False) == RunTimes().limits(last=True) == (math.inf, math.inf)


def test_near_and_abroad_have_times_of_their_own() -> None:
    times = RunTimes()
    times.took(1.0, abroad=False)
    assert times.limits(last=False) == (PATIENCE, math.inf)
    times.took(10.0, abroad=True)
    assert times.limits(last=False) == (PATIENCE, 10 * PATIENCE)
    assert times.limits(last=True) == (LAST_PATIENCE, 10 * LAST_PATIENCE), "the last are waited for less"


def test_runs_that_are_quick_are_given_some_time_all_the_same() -> None:
    times = RunTimes()
    times.took(0.001, abroad=False)
    assert times.limits(last=False)[0] == MIN_PATIENCE
    assert times.limits(last=True)[0] == MIN_LAST_PATIENCE


def test_runs_double_while_they_are_quick_and_halve_when_they_are_slow() -> None:
    times = RunTimes()
    sizes = [times.run_bytes]
    for _ in range(8):
        times.took(QUICK_RUN_SECONDS / 2, abroad=False)
        sizes.append(times.run_bytes)
    assert sizes[:5] == [RUN_BYTES << n for n in range(5)]
    assert sizes[-1] == LONG_RUN_BYTES
    times.took((QUICK_RUN_SECONDS + SLOW_RUN_SECONDS) / 2, abroad=False)
    assert times.run_bytes == LONG_RUN_BYTES
    for _ in range(8):
        times.took(2 * SLOW_RUN_SECONDS, abroad=True)
    assert times.run_bytes == RUN_BYTES
