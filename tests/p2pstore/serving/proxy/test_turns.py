"""Who runs and who waits, on a clock of the test's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.proxy.turns import LEAST_RETRY_SECONDS, MOST_RETRY_SECONDS, Turn, Turns


def test_they_run_then_wait_then_are_refused() -> None:
    turns = Turns(running_limit=1, waiting_limit=2, wait_seconds=10)
    assert [turns.come(name, 0.0) for name in "abcd"] == [Turn.RUNS, Turn.WAITS, Turn.WAITS, Turn.REFUSED]
    assert turns.end(1.0) == "b"
    assert turns.come("e", 1.0) is Turn.WAITS
    turns.leave("c")
    assert turns.end(2.0) == "e"
    assert turns.end(3.0) is None
    assert (turns.running, turns.waiting) == (0, 0)


def test_who_waits_for_too_long_waits_no_more() -> None:
    turns = Turns(running_limit=1, waiting_limit=9, wait_seconds=10)
    for name, now in (("a", 0.0), ("b", 0.0), ("c", 5.0)):
        turns.come(name, now)
    assert turns.late(9.9) == []
    assert turns.late(10.0) == ["b"]
    assert turns.late(14.0) == []
    assert turns.end(14.0) == "c"


def test_how_long_to_stay_away_follows_from_how_fast_they_end() -> None:
    turns = Turns(running_limit=100, waiting_limit=1000, wait_seconds=1e9)
    for number in range(200):
        turns.come(number, 0.0)
    assert turns.retry_after() >= LEAST_RETRY_SECONDS
    for number in range(100):
        turns.end(float(number) / 10)
    quick = turns.retry_after()
    for number in range(50):
        turns.end(10.0 + number * 5)
    assert LEAST_RETRY_SECONDS <= quick < turns.retry_after() <= MOST_RETRY_SECONDS


@given(st.lists(st.tuples(st.sampled_from(["come", "end", "leave", "late"]), st.floats(0, 5)), max_size=60))
def test_no_turn_is_lost_and_no_limit_passed(steps: list[tuple[str, float]]) -> None:
    turns = Turns(running_limit=2, waiting_limit=3, wait_seconds=4)
    now, number = 0.0, 0
    running: set[int] = set()
    waiting: list[int] = []
    for what, pause in steps:
        now += pause
        if what == "come":
            number += 1
            turn = turns.come(number, now)
            if turn is Turn.RUNS:
                running.add(number)
            elif turn is Turn.WAITS:
                waiting.append(number)
            else:
                assert len(waiting) == 3
        elif what == "end" and running:
            running.pop()
            following = turns.end(now)
            assert following == (waiting[0] if waiting else None)
            if waiting:
                running.add(waiting.pop(0))
        elif what == "leave" and waiting:
            turns.leave(waiting.pop())
        elif what == "late":
            for who in turns.late(now):
                assert who == waiting.pop(0)
        assert (turns.running, turns.waiting) == (len(running), len(waiting))
        assert len(running) <= 2
        assert not waiting or len(running) == 2
