"""A pull to which nothing comes gives up after a while, and not before; only bytes begin the count again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pstore.pull.hope import (
    BUSY_SECONDS,
    LEAST_BYTES,
    MAX_STEP_SECONDS,
    NO_BYTE_SECONDS,
    NO_HOLDER_SECONDS,
    NO_SOURCE_SECONDS,
    QUIET_SECONDS,
    TELL_SECONDS,
    WRITE_SECONDS,
    Hope,
    Sight,
    Wait,
)

ASKED = Sight(received=0, verified=0, stuck=False, busy=False, writing=False, candidates=1)
STUCK = replace(ASKED, stuck=True)
NOBODY = replace(STUCK, candidates=0)
BUSY = replace(STUCK, busy=True)
WRITING = replace(ASKED, writing=True)
STEP = 0.5


class Clocked:
    """A hope that is looked at twice a second."""

    def __init__(self, **options: int) -> None:
        self.now = 1000.0
        self.hope = Hope(self.now, **options)
        self.told = 0

    def go(self, seconds: float, sight: Sight) -> bool:
        """Let that much time pass; whether it is over by then."""
        until = self.now + seconds
        while self.now < until and not self.hope.over:
            self.now += STEP
            self.hope.look(self.now, sight)
            self.told += self.hope.tells()
        return self.hope.over


@pytest.mark.parametrize(
    ("sight", "wait", "limit"),
    [
        (ASKED, Wait.BYTES, NO_BYTE_SECONDS),
        (STUCK, Wait.SOURCE, NO_SOURCE_SECONDS),
        (NOBODY, Wait.SOURCE, NO_HOLDER_SECONDS),
        (BUSY, Wait.PLACE, BUSY_SECONDS),
        (replace(ASKED, queued=True), Wait.PLACE, BUSY_SECONDS),
        (WRITING, Wait.WRITE, WRITE_SECONDS),
    ],
)
def test_each_wait_has_its_bound(sight: Sight, wait: Wait, limit: float) -> None:
    clocked = Clocked()
    assert not clocked.go(limit, sight)
    assert clocked.hope.wait is wait
    assert clocked.hope.left == 0.0
    assert clocked.go(2 * STEP, sight)
    assert clocked.hope.limit == limit


def test_a_source_that_is_found_anew_and_sends_nothing_does_not_begin_the_count_again() -> None:
    clocked = Clocked()
    for _ in range(100):
        if clocked.go(3.0, ASKED) or clocked.go(1.0, STUCK):
            break
    assert clocked.hope.over
    assert clocked.now - 1000.0 <= NO_BYTE_SECONDS + 5.0


@pytest.mark.parametrize("sight", [replace(ASKED, received=LEAST_BYTES), replace(ASKED, received=9, verified=9)])
def test_bytes_and_a_small_chunk_begin_it_again(sight: Sight) -> None:
    clocked = Clocked()
    assert not clocked.go(NO_BYTE_SECONDS - 1, ASKED)
    assert not clocked.go(NO_BYTE_SECONDS - 1, sight)
    assert clocked.go(3.0, sight)


def test_a_byte_a_minute_is_nothing() -> None:
    clocked = Clocked()
    over = [clocked.go(20.0, replace(ASKED, received=byte)) for byte in range(4)]
    assert over[-1]


def test_halves_of_chunks_are_no_progress_for_ever() -> None:
    clocked = Clocked(most=10 * LEAST_BYTES)
    over = [clocked.go(20.0, replace(ASKED, received=n * LEAST_BYTES)) for n in range(20)]
    assert not any(over[:11])
    assert over[-1]


def test_fewer_bytes_count_where_the_users_own_limit_lets_no_more_through() -> None:
    clocked = Clocked(least=2)
    assert not any(clocked.go(20.0, replace(ASKED, received=2 * n)) for n in range(10))


def test_a_source_that_died_may_start_again_though_its_lease_ran_out() -> None:
    clocked = Clocked()
    clocked.go(STEP, replace(ASKED, received=9, verified=9))
    gone = replace(NOBODY, received=9, verified=9)
    assert not clocked.go(NO_SOURCE_SECONDS, gone)
    assert clocked.go(2 * STEP, gone)


def test_a_source_that_withdrew_the_object_does_not_come_back_with_it() -> None:
    clocked = Clocked()
    clocked.go(STEP, replace(ASKED, received=9, verified=9))
    withdrawn = replace(NOBODY, received=9, verified=9, withdrawn=True)
    assert not clocked.go(NO_HOLDER_SECONDS, withdrawn)
    assert clocked.go(2 * STEP, withdrawn)


def test_a_holder_that_comes_up_late_is_waited_for() -> None:
    clocked = Clocked()
    assert not clocked.go(NO_HOLDER_SECONDS, NOBODY)
    assert not clocked.go(NO_SOURCE_SECONDS - NO_HOLDER_SECONDS, STUCK)
    assert clocked.go(2 * STEP, STUCK)


def test_patience_with_nobody_counts_from_the_first_look_for_them() -> None:
    clocked = Clocked()
    unknown = replace(NOBODY, looked=False)
    assert not clocked.go(NO_SOURCE_SECONDS - 1, unknown)
    assert not clocked.go(NO_HOLDER_SECONDS, NOBODY)
    assert clocked.go(2 * STEP, NOBODY)
    assert Clocked().go(NO_SOURCE_SECONDS + 1, unknown)


def test_the_time_at_a_busy_holder_is_not_the_others_fault() -> None:
    clocked = Clocked()
    assert not clocked.go(NO_BYTE_SECONDS, BUSY)
    assert not clocked.go(NO_SOURCE_SECONDS, STUCK)


def test_who_stood_still_himself_blames_nobody() -> None:
    clocked = Clocked()
    clocked.now += 1000.0
    clocked.hope.look(clocked.now, ASKED)
    assert clocked.hope.quiet_seconds == MAX_STEP_SECONDS


def test_the_user_hears_of_it_soon_and_then_again() -> None:
    clocked = Clocked()
    clocked.go(QUIET_SECONDS - STEP, ASKED)
    assert clocked.told == 0
    clocked.go(STEP, ASKED)
    assert clocked.told == 1
    clocked.go(TELL_SECONDS, ASKED)
    assert clocked.told == 2
    clocked.go(STEP, replace(ASKED, received=LEAST_BYTES))
    clocked.go(QUIET_SECONDS, replace(ASKED, received=LEAST_BYTES))
    assert clocked.told == 3
