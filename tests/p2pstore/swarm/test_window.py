"""No more fetches than the window count at a time, and those that were declined hear one after the other."""

from __future__ import annotations

from p2pstore.swarm.pace import MIN_PLACES
from p2pstore.swarm.window import FEW_TOLD, MIN_PATIENCE, PATIENCE, TOLD, Window

RUNS = [range(n, n + 1) for n in range(10)]


def filled(now: float = 0.0, size: int = MIN_PLACES) -> Window:
    made = Window()
    made.size = size
    for run in RUNS[:size]:
        assert not made.full
        made.take("p", run, now)
    assert made.full
    return made


def nobody(_: str) -> bool:
    return False


def test_one_that_ends_makes_room() -> None:
    window = filled()
    window.release("p", RUNS[0])
    window.release("p", RUNS[0])
    window.release("q", RUNS[1])
    assert not window.full
    assert window.under_way == MIN_PLACES - 1


def test_nobody_hears_while_it_is_full_and_who_was_declined_last_hears_first() -> None:
    window = filled(size=MIN_PLACES + 1)
    for peer in "abca":
        window.owe(peer)
    assert window.owed(nobody) == []
    window.release("p", RUNS[0])
    assert window.owed(nobody) == ["a"]
    window.forget("a")
    window.release("p", RUNS[1])
    assert window.owed(nobody) == ["c", "b"], "as many as there is room for"


def test_the_least_window_tells_one_more() -> None:
    window = filled()
    for peer in "abc":
        window.owe(peer)
    window.release("p", RUNS[0])
    assert len(window.owed(nobody)) == FEW_TOLD > TOLD


def test_who_waits_keeps_nobody_else_from_hearing() -> None:
    window = filled()
    for peer in "abc":
        window.owe(peer)
    window.release("p", RUNS[0])
    assert window.owed(lambda peer: peer in "cb") == ["a"]
    assert window.owed(lambda _: True) == []


def test_one_that_hangs_counts_no_more() -> None:
    window = filled(now=10.0)
    window.pass_slow(1e9)
    assert window.full, "while nothing has come nobody knows how long it takes"
    window.took(1.0)
    window.pass_slow(10.0 + PATIENCE - 0.1)
    assert window.full
    window.pass_slow(10.0 + PATIENCE + 0.1)
    assert window.under_way == 0


def test_a_short_time_is_not_slow() -> None:
    window = filled(now=0.0)
    window.took(MIN_PATIENCE / 100)
    window.pass_slow(MIN_PATIENCE - 0.01)
    assert window.full


def test_a_wider_window_has_room() -> None:
    window = filled()
    window.size = MIN_PLACES + 1
    assert not window.full
