"""What was not used for longest goes first, and a prefix's end before its beginning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.simulation.cache import Cache


def test_the_longest_unused_goes() -> None:
    cache = Cache(3)
    assert sorted(cache.use([1, 2])[0]) == [1, 2]
    assert cache.use([9]) == ([9], [])
    assert cache.use([1, 2]) == ([], [])
    assert cache.use([8]) == ([8], [9])


def test_the_end_of_a_prefix_goes_before_its_beginning() -> None:
    cache = Cache(3)
    cache.use([1, 2, 3])
    assert cache.use([9])[1] == [3]
    assert cache.prefix([1, 2, 3]) == 2


def test_a_prompt_larger_than_the_cache_keeps_its_beginning() -> None:
    cache = Cache(2)
    new, gone = cache.use([1, 2, 3, 4])
    assert sorted(new) == [1, 2]
    assert gone == []
    assert Cache(0).use([1]) == ([], [])


@given(st.integers(0, 5), st.lists(st.lists(st.integers(0, 9), unique=True, max_size=6), max_size=20))
def test_what_it_says_is_new_and_gone_is_what_it_has(room: int, uses: list[list[int]]) -> None:
    cache, have = Cache(room), set[int]()
    for blocks in uses:
        new, gone = cache.use(blocks)
        have = (have | set(new)) - set(gone)
        assert len(cache) == len(have) <= room
        assert all(cache.prefix([block]) for block in have)
