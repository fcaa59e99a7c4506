"""The compatible class's values: as bytes and by address, by what upstream's own client answers."""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

import numpy as np
import pytest

from engine.memory.copying import address_of
from p2pstore.kv.client.compat import MooncakeDistributedStore
from tests.p2pstore.kv.client.conftest import SEGMENT, Room
from tests.p2pstore.kv.client.masters import AMaster
from tests.p2pstore.kv.client.peers import value_of


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


def test_bytes_in_and_out(store: MooncakeDistributedStore, key: str) -> None:
    assert store.put(key, b"first") == 0
    assert store.put(key, b"second") == 0, "a put of an existing key is 0 and changes nothing"
    assert store.get(key) == b"first"
    assert store.upsert(key, b"third") == 0
    assert store.get(key) == b"third"
    assert store.get("no " + key) == b""
    assert store.put_batch([key + "1", key + "2"], [b"1", bytearray(b"22")]) == 0
    assert store.get_batch([key + "1", "no " + key, key + "2"]) == [b"1", b"", b"22"]
    assert store.put_parts(key + "p", b"one", array("B", [2]), b"") == 0
    assert store.get(key + "p") == b"one\2"
    assert store.upsert_parts(key + "p", b"x", b"y") == store.upsert_batch([key + "1"], [b"new"]) == 0
    assert store.get_batch([key + "p", key + "1"]) == [b"xy", b"new"]


def test_a_handle_keeps_its_bytes(store: MooncakeDistributedStore, key: str) -> None:
    store.put(key, b"as it was")
    handle = store.get_buffer(key)
    assert handle is not None
    assert store.remove(key, True) == 0
    store.put(key, b"another..")
    assert (bytes(handle), handle.size(), len(handle)) == (b"as it was", 9, 9)
    assert ctypes.string_at(handle.ptr(), 9) == b"as it was"
    assert np.frombuffer(handle, dtype=np.uint8)[0] == ord("a")
    assert store.get_buffer("no " + key) is None
    assert store.batch_get_buffer([key, "no " + key])[1] is None


def test_memory_by_address(store: MooncakeDistributedStore, key: str) -> None:
    source = Room(1000)
    source.data[:] = value_of(key, 1000)  # type: ignore[assignment]
    assert store.register_buffer(source.ptr, 1000) == 0
    assert store.put_from(key, source.ptr, 1000) == 0
    room = Room(1200)
    assert store.get_into(key, room.ptr, 1200) == 1000, "unregistered memory will do, and it may be larger"
    assert bytes(room)[:1000] == value_of(key, 1000)
    assert bytes(room)[1000:] == bytes(200)
    assert store.get_into(key, room.ptr, 999) == -600
    assert store.get_into("no " + key, room.ptr, 1200) == -704
    assert store.unregister_buffer(source.ptr) == 0
    assert store.unregister_buffer(source.ptr) == -600
    assert store.register_buffer(0, 5) == store.register_buffer(5, 0) == -600


def test_batches_tell_of_each_key_in_order(store: MooncakeDistributedStore, key: str) -> None:
    source, room = Room(300), Room(300)
    source.data[:] = value_of(key, 300)  # type: ignore[assignment]
    names = [f"{key}-{number}" for number in range(3)]
    at = [source.ptr, source.ptr + 100, source.ptr + 200]
    assert store.batch_put_from(names, at, [100, 0, 50]) == [0, -600, 0]
    assert store.batch_get_into(names, [room.ptr, room.ptr + 100, room.ptr + 200], [100] * 3) == [100, -704, 50]
    assert bytes(room) == value_of(key, 100) + bytes(100) + value_of(key, 300)[200:250] + bytes(50)
    assert store.batch_is_exist(names) == [1, 0, 1]
    assert store.batch_put_from([names[1], names[1]], [at[0], at[1]], [5, 6]) == [0, 0], "the first of two wins"
    assert store.get_size(names[1]) == 5
    assert store.batch_put_from(names, at, [100, 5, 50]) == [0, 0, 0], "what is there counts as put"
    assert store.get_size(names[1]) == 5
    twice = Room(200)
    assert store.batch_get_into([names[0]] * 2, [twice.ptr, twice.ptr + 100], [100] * 2) == [100, 100]
    assert bytes(twice) == value_of(key, 100) * 2
    assert store.get_batch([names[0], names[2], names[0]])[::2] == [value_of(key, 100)] * 2
    assert store.get_batch([]) == []
    assert store.batch_upsert_from(names[1:2], at[:1], [7]) == [0]
    assert store.get_size(names[1]) == 7


def test_lists_of_different_lengths_are_refused_for_all(store: MooncakeDistributedStore, key: str) -> None:
    room = Room(10)
    names = [key, key + "2"]
    assert store.batch_put_from(names, [room.ptr], [10]) == [-600, -600]
    assert store.batch_get_into(names, [room.ptr] * 2, [10]) == [-600, -600]
    assert store.put_batch(names, [b"x"]) == -600
    assert store.batch_put_from_multi_buffers(names, [[room.ptr]] * 2, [[1], [1, 2]]) == [-600, -600]
    assert store.batch_get_into_multi_buffers(names, [[room.ptr]] * 2, [[1], [1, 2]]) == [-600, -600]
    assert store.batch_is_exist(names) == [0, 0]


def test_values_in_several_buffers(store: MooncakeDistributedStore, key: str) -> None:
    source, room = Room(1000), Room(1000)
    source.data[:] = value_of(key, 1000)  # type: ignore[assignment]
    pointers = [[source.ptr + 500, source.ptr, source.ptr + 100], [source.ptr]]
    assert store.batch_put_from_multi_buffers([key, key + "2"], pointers, [[100, 50, 0], [10]]) == [0, 0]
    expected = value_of(key, 1000)[500:600] + value_of(key, 1000)[:50]
    assert store.get(key) == expected
    spread = [[room.ptr + 300, room.ptr], [room.ptr + 900]]
    assert store.batch_get_into_multi_buffers([key, "no " + key], spread, [[120, 200], [5]], True) == [150, -704]
    assert bytes(room)[300:420] + bytes(room)[:30] == expected
    assert store.batch_get_into_multi_buffers([key], [[room.ptr, room.ptr]], [[100, 49]]) == [-600]
    assert store.put_from_with_metadata(key + "m", source.ptr, source.ptr + 500, 20, 10) == 0
    assert store.get(key + "m") == value_of(key, 1000)[500:510] + value_of(key, 1000)[:20]


@pytest.mark.parametrize("put", ["put", "put_from", "put_parts", "put_batch", "batch_put_from"])
def test_an_empty_value_is_refused_and_never_said_to_be_there(
    store: MooncakeDistributedStore, key: str, put: str
) -> None:
    """Upstream's ``put_from`` and ``put_parts`` say 0 and keep nothing."""
    room = Room(1)
    found: Any = {
        "put": lambda: store.put(key, b""),
        "put_from": lambda: store.put_from(key, room.ptr, 0),
        "put_parts": lambda: store.put_parts(key, b"", b""),
        "put_batch": lambda: store.put_batch([key + "good", key], [b"x", b""]),
        "batch_put_from": lambda: store.batch_put_from([key], [room.ptr], [0])[0],
    }[put]()
    assert found == -600
    assert store.batch_is_exist([key, key + "good"]) == [0, 0], "one empty value refuses the whole put_batch"


def test_a_value_larger_than_the_local_buffer_is_refused(master: str, key: str) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, 1000, "tcp", "", master) == 0
    assert store.put(key, bytes(1001)) == store.put_batch([key], [bytes(1001)]) == -600
    assert store.put(key, bytes(1000)) == 0
    room = Room(5000)
    assert store.put_from(key + "2", room.ptr, 5000) == 0
    store.close()


def test_a_value_larger_than_the_pool_finds_no_room(own_master: AMaster, key: str) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 1 << 20, 8 << 20, "tcp", "", own_master.address) == 0
    assert store.put(key, bytes(2 << 20)) == -200
    assert "no segment has room" in store.last_error
    store.close()


def test_what_can_be_no_memory_is_refused(store: MooncakeDistributedStore, key: str) -> None:
    room = Room(10)
    assert store.put(key, b"12345") == 0
    for pointer, size in [(0, 5), (-8, 5), (room.ptr, -5)]:
        assert store.put_from(key + "2", pointer, size) == -600
        assert store.get_into(key, pointer, size) == -600
        assert store.batch_get_into_multi_buffers([key], [[pointer]], [[size]]) == [-600]
    assert store.batch_get_session_start([key]) == [0]
    assert store.batch_get_into_multi_buffer_ranges([key], [[0]], [[5]], [[0]]) == [-600]
    assert store.batch_get_into_multi_buffer_ranges([key], [[room.ptr]], [[5]], [[-1]]) == [-600]


def test_addresses_are_those_of_the_memory() -> None:
    data = bytearray(b"12345")
    assert ctypes.string_at(address_of(data), 5) == b"12345"
