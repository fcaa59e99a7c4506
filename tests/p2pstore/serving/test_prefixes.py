"""The index says of every instance what a plain set of its blocks would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.prefixes import Prefixes, members

NUMBERS = range(4)
BLOCKS = st.lists(st.integers(0, 7), unique=True, max_size=8)
STEPS = st.lists(
    st.tuples(st.sampled_from(["stored", "expect", "unexpect", "removed", "forget"]), st.sampled_from(NUMBERS), BLOCKS),
    max_size=30,
)


def prefix(blocks: list[int], have: set[int]) -> int:
    return next((count for count, block in enumerate(blocks) if block not in have), len(blocks))


@given(STEPS, BLOCKS)
def test_it_agrees_with_sets(steps: list[tuple[str, int, list[int]]], asked: list[int]) -> None:
    index = Prefixes()
    held: list[set[int]] = [set() for _ in NUMBERS]
    expected: list[set[int]] = [set() for _ in NUMBERS]
    for what, number, blocks in steps:
        mine, coming = held[number], expected[number]
        if what == "forget":
            index.forget(number)
            mine.clear()
            coming.clear()
            continue
        getattr(index, what)(number, blocks)
        if what == "stored":
            mine.update(blocks)
            coming.update(blocks)
        elif what == "expect":
            coming.update(blocks)
        elif what == "unexpect":
            coming.difference_update(set(blocks) - mine)
        else:
            mine.difference_update(blocks)
            coming.difference_update(blocks)
    among = [0, 1, 3]
    match = index.match(asked, members(among))
    lengths = {number: prefix(asked, expected[number]) for number in among}
    assert match.lengths == {number: length for number, length in lengths.items() if length}
    assert match.longest == max(lengths.values())
    held_lengths = {number: prefix(asked, held[number]) for number in among}
    assert match.best == max(held_lengths.values())
    holders = [number for number in NUMBERS if match.holds(number)]
    assert holders == [number for number, length in held_lengths.items() if length == match.best > 0]


def test_nothing_is_kept_of_what_is_gone() -> None:
    index = Prefixes()
    index.stored(0, [1, 2])
    index.expect(1, [3])
    index.removed(0, [1, 2])
    index.forget(1)
    assert index._masks == {}
