"""Things happen in the order of time, then in that of asking, until the end or until one of them says stop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.bench.virtual_clock import VirtualClock


def test_the_order_of_time_then_of_asking() -> None:
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, clock.now))
        if name == "first":
            clock.at(2.0, note, "asked for later")

    for time, name in [(2.0, "second"), (1.0, "first"), (2.0, "third"), (9.0, "too late")]:
        clock.at(time, note, name)
    clock.run(8.0)
    assert seen == [("first", 1.0), ("second", 2.0), ("third", 2.0), ("asked for later", 2.0)]
    assert (clock.now, clock.events) == (2.0, 5)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=30), st.sets(st.sampled_from([0.25, 0.5])))
def test_delays_that_are_many_events_change_no_order(delays: list[float], lanes: set[float]) -> None:
    def order(clock: VirtualClock) -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []
        left = list(enumerate(delays))

        def happen(number: int) -> None:
            seen.append((number, clock.now))
            for _ in range(2):
                if left:
                    following, delay = left.pop()
                    clock.after(delay, happen, following)

        clock.at(0.125, happen, -1)
        clock.run(60.0)
        return seen

    with_lanes = order(VirtualClock(lanes))
    assert with_lanes == order(VirtualClock())
    assert len(with_lanes) == len(delays) + 1


def test_nothing_happens_after_stop() -> None:
    clock = VirtualClock()
    seen: list[int] = []
    clock.at(1.0, clock.stop)
    clock.at(1.0, seen.append, 1)
    clock.run(5.0)
    assert seen == []
