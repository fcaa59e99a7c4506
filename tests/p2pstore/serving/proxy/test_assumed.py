"""What an instance is taken to hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.events import Removed, Stored
from p2pstore.serving.proxy.assumed import Assumed


def test_what_was_asked_for_longest_ago_goes_and_prefixes_go_last() -> None:
    assumed = Assumed(most=3)
    assert assumed.computed("p", (1, 2)) == [Stored("p", (1, 2))]
    assert assumed.computed("p", (1, 3)) == [Stored("p", (1, 3))]
    assert assumed.computed("p", (4,)) == [Stored("p", [4]), Removed("p", [2])]
    assert assumed.computed("q", (1,)) == [Stored("q", (1,))]
    assumed.forget("p")
    assert assumed.computed("p", (5, 6, 7)) == [Stored("p", (5, 6, 7))]


@given(st.lists(st.tuples(st.sampled_from("pq"), st.lists(st.integers(0, 9), unique=True, max_size=6)), max_size=30))
def test_what_is_told_is_what_is_held(steps: list[tuple[str, list[int]]]) -> None:
    assumed, told = Assumed(most=4), {"p": set(), "q": set()}  # type: ignore[var-annotated]
    for name, blocks in steps:
        for event in assumed.computed(name, blocks):
            if isinstance(event, Stored):
                told[name] |= set(event.blocks)
            else:
                told[name] -= set(event.blocks)
        assert told[name] == set(assumed._held[name])
        assert len(told[name]) <= 4
