"""Ranges of values, to places in registered memory."""

from __future__ import annotations

import pytest

from p2pstore.kv.client.compat import MooncakeDistributedStore
from tests.p2pstore.kv.client.conftest import Room
from tests.p2pstore.kv.client.peers import value_of


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


def test_ranges(store: MooncakeDistributedStore, key: str) -> None:
    one, two = value_of(key, 100), value_of(key + "2", 50)
    store.put(key, one)
    store.put(key + "2", two)
    first, second = Room(32), Room(32)
    for room in (first, second):
        assert store.register_buffer(room.ptr, 32) == 0
    found = store.get_into_ranges(
        [first.ptr, second.ptr],
        [[key, key + "2"], [key + "2", key]],
        [[[0, 20], [8]], [[4], [16]]],
        [[[1, 30], [2]], [[0], [10]]],
        [[[4, 3], [5]], [[6], [4]]],
    )
    assert found == [[[4, 3], [5]], [[6], [4]]]
    assert bytes(first) == one[1:5] + bytes(4) + two[2:7] + bytes(7) + one[30:33] + bytes(9)
    assert bytes(second) == bytes(4) + two[:6] + bytes(6) + one[10:14] + bytes(12)
    bad = store.get_into_ranges([first.ptr], [[key, "no " + key]], [[[0, 0], [0]]], [[[99, 99], [0]]], [[[1, 2], [1]]])
    assert bad == [[[1, -600], [-704]]]
    uneven = store.get_into_ranges([first.ptr], [[key, key]], [[[0], [0]]], [[[0, 1], [0]]], [[[], [1]]])
    assert uneven == [[[-600, -600], [1]]]
    assert store.get_into_ranges([first.ptr], [[key, key]], [[[0]]], [[[0]]], [[[1]]]) == [[[-600], [-600]]]
    assert store.get_into_ranges([first.ptr], [[key]], [], [], []) == [[[-600]]]
    whole = bytes(first)
    for at, start, length in [(32, 0, 1), (30, 0, 3), (-1, 0, 1), (0, -1, 1), (0, 0, -1), (0, 0, 0)]:
        assert store.get_into_ranges([first.ptr], [[key]], [[[at]]], [[[start]]], [[[length]]]) == [[[-600]]]
    assert store.get_into_ranges([first.ptr + 30], [[key]], [[[0, 1]]], [[[0, 0]]], [[[2, 2]]]) == [[[2, -600]]]
    assert bytes(first) == whole[:30] + one[:2], "more was written than there is room for"
    assert store.unregister_buffer(first.ptr) == 0
    assert store.get_into_ranges([first.ptr], [[key]], [[[0]]], [[[0]]], [[[1]]]) == [[[-600]]]
