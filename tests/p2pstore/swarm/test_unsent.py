"""An origin names each of its chunks once, in runs that are not too long, and again only what came back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.swarm.rarity import RUN_BYTES, RUN_CHUNKS
from p2pstore.swarm.unsent import Unsent

KIB = 1 << 10
LENGTHS = st.lists(st.sampled_from([1, 100 * KIB, 600 * KIB, RUN_BYTES, 3 * RUN_BYTES]), max_size=60)


@given(LENGTHS, st.integers(0, 99))
def test_each_chunk_is_named_once(lengths: list[int], start: int) -> None:
    unsent = Unsent(lengths, start)
    named: list[int] = []
    while unsent:
        run = unsent.name()
        assert run
        assert len(run) == 1 or sum(lengths[chunk] for chunk in run) <= RUN_BYTES
        named += run
    assert sorted(named) == list(range(len(lengths)))
    if named:
        assert named[0] == start % len(lengths)


def test_what_came_back_is_named_again() -> None:
    unsent = Unsent([RUN_BYTES] * 2)
    first = unsent.name()
    unsent.put_back(first)
    assert unsent.name() == first
    assert unsent.name() != first
    assert not unsent
    unsent.put_back(first)
    assert unsent
    assert unsent.name() == first


def test_a_run_has_a_bounded_number_of_chunks() -> None:
    assert len(Unsent([1] * 3 * RUN_CHUNKS).name()) == RUN_CHUNKS
