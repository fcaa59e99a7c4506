"""The compatible class: upstream's names and numbers, by what upstream's own client answers."""

from __future__ import annotations

import ctypes
import os
import time
from array import array
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.memory.copying import address_of
from engine.rpc.codes import Code
from engine.rpc.messages import Replicas
from p2pstore.kv.client import checksums, sessions, writing
from p2pstore.kv.client.compat import MooncakeDistributedStore, ReplicateConfig, SoftPinAction
from tests.p2pstore.kv.client.conftest import SEGMENT, MakePeer
from tests.p2pstore.kv.client.masters import AMaster, OurMaster
from tests.p2pstore.kv.client.peers import value_of
from tests.ports import closed_port, reserved_port

_numbers = count()


@pytest.fixture
def key() -> str:
    return f"compat-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def store(master: str) -> Iterator[MooncakeDistributedStore]:
    made = MooncakeDistributedStore()
    assert made.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, SEGMENT, "tcp", "", master) == 0, made.last_error
    yield made
    assert made.close() == 0


class Room:
    """Memory with an address."""

    def __init__(self, size: int) -> None:
        self.data = (ctypes.c_ubyte * size)()
        self.ptr = ctypes.addressof(self.data)

    def __bytes__(self) -> bytes:
        return bytes(self.data)


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


def test_sessions(store: MooncakeDistributedStore, key: str) -> None:
    source, room = Room(1000), Room(1000)
    source.data[:] = value_of(key, 1000)  # type: ignore[assignment]
    names = [key, key + "2", key + "3"]
    assert store.batch_put_session_start(names, [300, 100, 0]) == [0, 0, -600]
    assert store.batch_put_session_start(names[:1], [300]) == [-600], "it was begun already"
    write = store.batch_put_from_multi_buffer_ranges
    assert write(names[:1], [[source.ptr, source.ptr + 100]], [[100, 200]], [[200, 0]]) == [0]
    assert write([key, "no"], [[source.ptr], [source.ptr]], [[101], [1]], [[200], [0]]) == [-600, -600]
    assert store.is_exist(key) == 0, "half a value is not to be seen"
    assert store.batch_put_session_end([key, "no"]) == [0, -600]
    assert store.get(key) == value_of(key, 1000)[100:300] + value_of(key, 1000)[:100]
    assert store.batch_put_session_revoke([key + "2", "no"]) == [0, -600]
    assert store.put(key + "2", b"free again") == 0
    assert store.batch_get_session_start([key, "no " + key]) == [0, -704]
    read = store.batch_get_into_multi_buffer_ranges
    assert read([key], [[room.ptr, room.ptr + 50]], [[50, 10]], [[250, 0]]) == [60]
    assert bytes(room)[:60] == value_of(key, 1000)[50:100] + value_of(key, 1000)[100:110]
    assert read([key], [[room.ptr]], [[51]], [[250]]) == [-600]
    assert store.batch_get_session_end([key]) == 0
    assert read([key], [[room.ptr]], [[1]], [[0]]) == [-600]


def spoil(store: MooncakeDistributedStore, key: str) -> None:
    """Change the last byte of what lies in the store's own memory."""
    client = store._client
    assert client is not None
    for replica in store.get_replica_desc(key):
        place = replica.get_memory_descriptor().buffer_descriptor
        if place.transport_endpoint == store.get_hostname():
            view = client.plane.in_place(place.transport_endpoint, place.buffer_address, place.size)
            assert view is not None
            view[-1] ^= 1


def test_ranges_that_are_all_of_a_value_are_compared(store: MooncakeDistributedStore, key: str) -> None:
    value = value_of(key, 100)
    store.put(key, value)
    room = Room(100)
    assert store.register_buffer(room.ptr, 100) == 0
    ask = store.get_into_ranges
    whole = [[[60, 0, 30]]], [[[60, 0, 30]]], [[[40, 30, 30]]]
    assert ask([room.ptr], [[key]], *whole) == [[[40, 30, 30]]]
    assert bytes(room) == value
    assert store.batch_get_session_start([key]) == [0]
    parts = store.batch_get_into_multi_buffer_ranges
    assert parts([key], [[room.ptr + 50, room.ptr]], [[50, 50]], [[50, 0]]) == [100]
    spoil(store, key)
    assert ask([room.ptr], [[key]], *whole) == [[[-801, -801, -801]]]
    assert parts([key], [[room.ptr + 50, room.ptr]], [[50, 50]], [[50, 0]]) == [-801]
    assert parts([key], [[room.ptr]], [[50]], [[50]]) == [50], "part of it is not compared"
    assert "wrong checksum" in store.last_error


def test_a_session_reads_the_next_replica_where_one_is_wrong(own_master: AMaster, key: str) -> None:
    stores = [MooncakeDistributedStore() for _ in range(2)]
    for store in stores:
        assert store.setup("127.0.0.1", "P2PHANDSHAKE", 4 << 20, 4 << 20, "tcp", "", own_master.address) == 0
    config = ReplicateConfig()
    config.replica_num = 2
    assert stores[0].put(key, value_of(key, 100), config) == 0
    room = Room(100)
    assert stores[0].batch_get_session_start([key]) == [0]
    spoil(stores[0], key)
    assert stores[0].batch_get_into_multi_buffer_ranges([key], [[room.ptr]], [[100]], [[0]]) == [100]
    assert bytes(room) == value_of(key, 100)
    for store in stores:
        store.close()


def test_a_value_that_a_session_writes_in_order_has_a_checksum(store: MooncakeDistributedStore, key: str) -> None:
    source = Room(100)
    source.data[:] = value_of(key, 100)  # type: ignore[assignment]
    client = store._client
    assert client is not None
    names = [key + "in order", key + "otherwise", key + "in part"]
    assert store.batch_put_session_start(names, [100] * 3) == [0, 0, 0]
    write = store.batch_put_from_multi_buffer_ranges
    assert write(names[:1], [[source.ptr, source.ptr + 10]], [[10, 20]], [[0, 10]]) == [0]
    assert write(names[:1], [[source.ptr + 30]], [[70]], [[30]]) == [0]
    assert write(names[1:2], [[source.ptr + 50, source.ptr]], [[50, 50]], [[50, 0]]) == [0]
    assert write(names[2:], [[source.ptr]], [[99]], [[0]]) == [0]
    assert store.batch_put_session_end(names) == [0, 0, 0]
    sums = [found.checksum for found in client.master.replicas(names) if isinstance(found, Replicas)]
    assert sums == [checksums.xxh3_of(memoryview(value_of(key, 100))), None, None]
    assert store.get(names[0]) == store.get(names[1]) == value_of(key, 100)


def test_a_session_goes_on_with_the_next_replica_where_the_first_ones_owner_died(
    own_master: AMaster, make_peer: MakePeer, key: str
) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 4 << 20, "tcp", "", own_master.address) == 0
    lives, dies = make_peer(own_master.address), make_peer(own_master.address)
    names = [f"{key}-{number}" for number in range(8)]
    for name in names:
        assert lives("put", name, 100, {"replicas": 2}) is True
    assert store.batch_get_session_start(names) == [0] * 8
    dies.kill()
    room = Room(8 * 60)
    at = [[room.ptr + 60 * number] for number in range(8)]
    assert store.batch_get_into_multi_buffer_ranges(names, at, [[60]] * 8, [[40]] * 8) == [60] * 8
    assert bytes(room) == b"".join(value_of(name, 100)[40:] for name in names)
    lives.kill()
    assert set(store.batch_get_into_multi_buffer_ranges(names, at, [[60]] * 8, [[40]] * 8)) <= {-707, -800}
    store.close()


def test_sessions_are_bounded_and_want_a_group_for_each_key(
    store: MooncakeDistributedStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [key + "1", key + "2"]
    config = ReplicateConfig()
    config.group_ids = ["one"]
    assert store.batch_put_session_start(names, [10, 10], config) == [-600, -600]
    assert "1 groups for 2 keys" in store.last_error
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 1)
    assert store.batch_put_session_start(names, [10, 10]) == [0, int(Code.BUFFER_OVERFLOW)]
    assert store.batch_put_session_start(names[1:], [10]) == [int(Code.BUFFER_OVERFLOW)]
    assert store.batch_put_session_revoke(names) == [0, -600]
    assert store.batch_put_session_start(names[1:], [10]) == [0]
    assert store.batch_put_session_revoke(names[1:]) == [0]


def test_keys(store: MooncakeDistributedStore, key: str) -> None:
    store.put(key, b"12345")
    assert (store.is_exist(key), store.is_exist("no " + key)) == (1, 0)
    assert (store.get_size(key), store.get_size("no " + key)) == (5, -704)
    (replica,) = store.get_replica_desc(key)
    assert (replica.is_memory_replica(), replica.is_disk_replica(), replica.is_local_disk_replica()) == (
        True,
        False,
        False,
    )
    place = replica.get_memory_descriptor().buffer_descriptor
    assert (place.size, place.transport_endpoint) == (5, store.get_hostname())
    assert place.buffer_address
    with pytest.raises(TypeError):
        replica.get_disk_descriptor()
    assert store.get_replica_desc("no " + key) == []
    assert list(store.batch_get_replica_desc([key, "no " + key])) == [key]
    assert store.remove(key) == -706, "it is leased"
    assert store.remove("no " + key) == -704
    assert store.batch_remove([key, "no " + key], True) == [0, -704]
    store.put_batch([key + "a", key + "b"], [b"1", b"2"])
    assert store.remove_by_regex(f"^{key}[ab]$", True) == 2


def test_replicate_config_takes_the_fields_of_all_releases(store: MooncakeDistributedStore, key: str) -> None:
    config = ReplicateConfig()
    assert config.soft_pin_ttl_ms is None
    for bad in (-1, 1 << 64, "5"):
        with pytest.raises(TypeError):
            config.soft_pin_ttl_ms = bad  # type: ignore[assignment]
    config.with_soft_pin = True
    assert config.soft_pin_action is SoftPinAction.ENABLE
    assert config.with_soft_pin
    config.soft_pin_ttl_ms = 1000
    config.preferred_segment = store.get_hostname()
    assert store.put(key, b"x", config) == 0
    with pytest.raises(AttributeError):
        config.with_softpin = True  # type: ignore[attr-defined]
    nothing = ReplicateConfig()
    nothing.replica_num = 0
    assert store.put(key + "0", b"x", nothing) == -600
    grouped = ReplicateConfig()
    grouped.group_ids = ["one", "two"]
    assert store.put(key + "1", b"x", grouped) == -600
    assert store.put_batch([key + "1", key + "2"], [b"x", b"y"], grouped) == 0


def test_life(master: str, key: str) -> None:
    store = MooncakeDistributedStore()
    assert store.health_check() == 1
    assert store.get_hostname() == ""
    assert store.put(key, b"x") == -600
    assert store.get(key) == b""
    assert store.batch_is_exist([key]) == [-600]
    assert store.batch_get_session_end([key]) == -1
    config = {"local_hostname": "localhost", "metadata_server": "P2PHANDSHAKE", "global_segment_size": "4mb"}
    assert store.setup({**config, "master_server_address": master, "device_name": ""}) == 0
    assert store.health_check() == 0
    host, port = store.get_hostname().split(":")
    assert host == "localhost"
    assert 12300 <= int(port) <= 14300
    assert store.put(key, b"x") == 0
    assert store.close() == store.close() == 0
    assert store.health_check() == 1
    assert store.setup({**config, "master_server_addr": master}) == 0, "it can be set up again"
    assert store.get(key) == b"", "what lay in its memory went with it"
    store.close()


def test_its_memory_leaves_the_pool_with_the_object(own_master: AMaster, key: str) -> None:
    store, other = MooncakeDistributedStore(), MooncakeDistributedStore()
    for each, size in ((store, 4 << 20), (other, 0)):
        assert each.setup("127.0.0.1", "P2PHANDSHAKE", size, 4 << 20, "tcp", "", own_master.address) == 0
    assert store.put(key, b"x") == 0
    assert other.is_exist(key) == 1
    del store, each
    deadline = time.monotonic() + 60
    while other.is_exist(key):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other.close()
    del other
    MooncakeDistributedStore().__del__()


def test_two_clients_may_be_given_one_port(master: str, key: str) -> None:
    """To upstream's client it is a name, and nobody listens there."""
    one, other = MooncakeDistributedStore(), MooncakeDistributedStore()
    place = f"127.0.0.1:{reserved_port()}"
    for store in (one, other):
        assert store.setup(place, "P2PHANDSHAKE", 4 << 20, 4 << 20, "tcp", "", master) == 0, store.last_error
    assert one.get_hostname() == place
    assert other.put(key, b"x") == 0
    assert one.get(key) == b"x"
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("changed", "code", "why"),
    [
        ({"master_server_adress": "10.0.0.1:1"}, -600, "did you mean 'master_server_address'"),
        ({"global_segment_size": "50%"}, -600, "is not a size"),
        ({"protocol": "carrier pigeon"}, -1, "transport carrier pigeon is not available"),
        ({"metadata_server": ""}, -600, "setup needs 'metadata_server'"),
    ],
)
def test_setup_says_why_not(master: str, changed: dict[str, str], code: int, why: str) -> None:
    store = MooncakeDistributedStore()
    config = {"local_hostname": "127.0.0.1", "metadata_server": "P2PHANDSHAKE", "master_server_addr": master}
    assert store.setup({**config, **changed}) == code
    assert why in store.last_error
    assert store.health_check() == 1


def test_without_a_master_setup_ends_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pstore.kv.client.compat.SETUP_SECONDS", 0.3)
    store = MooncakeDistributedStore()
    place = f"127.0.0.1:{closed_port()}"
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 0, "tcp", "", place) == -900
    assert f"the store's master at {place} cannot be used: connection refused" in store.last_error


def test_without_its_master_calls_answer_at_once(own_master: AMaster, key: str) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 4 << 20, "tcp", "", own_master.address) == 0
    own_master.kill()
    began = time.monotonic()
    for _ in range(5):
        assert store.is_exist(key) == -900
        assert store.get(key) == b""
        assert store.put(key, b"x") == -900
        assert store.batch_is_exist([key, key]) == [-900, -900]
        assert store.remove(key) == store.remove_all(True) == store.get_size(key) == -900
        assert store.get_replica_desc(key) == []
        assert store.batch_get_session_start([key]) == [-900]
    assert time.monotonic() - began < 30
    assert store.health_check() == 2, "also of a client without memory"
    store.close()


def test_a_dead_owner_and_a_key_being_written_have_their_codes(
    own_master: AMaster, make_peer: MakePeer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(writing, "BUSY_SECONDS", 0.1)
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 4 << 20, "tcp", "", own_master.address) == 0
    owner = make_peer(own_master.address)
    assert owner("put", key, 100) is True
    assert owner("begin", key + "half", 100) is True
    assert store.put(key + "half", b"x") == -703
    assert store.get_size(key + "half") == -703
    room = Room(100)
    assert store.get_into(key, room.ptr, 100) == 100
    owner.kill()
    assert store.get_into(key, room.ptr, 100) in ({-800, -704} if isinstance(own_master, OurMaster) else {-800})
    assert store.get_buffer(key) is None
    store.close()


def test_more_memory_is_given_and_taken_back(own_master: AMaster, key: str) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 4 << 20, "tcp", "", own_master.address) == 0
    assert store.put(key, b"x") != 0
    made = store.allocate_and_mount_segment(4 << 20)
    assert made["ret"] == 0
    assert store.put(key, b"x") == 0
    assert store.unmount_and_free_segment(made["segment_ids"]) == 0
    assert store.is_exist(key) == 0
    for none in ("00" * 16, "00", "no number"):
        assert store.unmount_and_free_segment([none]) == -600
    store.close()


def test_tasks_and_replicas(own_master: AMaster, key: str) -> None:
    stores = [MooncakeDistributedStore() for _ in range(2)]
    for store in stores:
        assert store.setup("127.0.0.1", "P2PHANDSHAKE", 4 << 20, 4 << 20, "tcp", "", own_master.address) == 0
    one, other = stores
    config = ReplicateConfig()
    config.preferred_segment = one.get_hostname()
    assert one.put(key, value_of(key, 5000), config) == 0
    task, code = other.create_copy_task(key, [other.get_hostname()])
    assert code == 0
    deadline = time.monotonic() + 60
    while True:
        response, code = other.query_task(task)
        assert code == 0
        assert response is not None
        if response.status.name in {"SUCCESS", "FAILED"}:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert response.status.name == "SUCCESS", response
    endpoints = {
        each.get_memory_descriptor().buffer_descriptor.transport_endpoint for each in one.get_replica_desc(key)
    }
    assert endpoints == {one.get_hostname(), other.get_hostname()}
    assert one.create_copy_task("no " + key, [other.get_hostname()])[1] < 0
    assert one.query_task((1, 2)) == (None, int(Code.NO_TASK))
    for store in stores:
        store.close()


def test_part_of_a_file_is_given_and_taken_back(own_master: AMaster, key: str, tmp_path: Path) -> None:
    store, other = MooncakeDistributedStore(), MooncakeDistributedStore()
    for each in (store, other):
        assert each.setup("127.0.0.1", "P2PHANDSHAKE", 0, 4 << 20, "tcp", "", own_master.address) == 0
    file = tmp_path / "memory"
    file.write_bytes(bytes(5 << 20))
    given = store.mount_segment(str(file), 4 << 20, 4096)
    assert given["ret"] == 0, store.last_error
    assert other.put(key, value_of(key, 100_000)) == 0
    assert store.get(key) == other.get(key) == value_of(key, 100_000)
    assert value_of(key, 100_000) in file.read_bytes()[4096:]
    for length, offset, why in [
        (5 << 20, 4096, "which has 5242880"),
        (4096, 5, "from a multiple of 4096"),
        (0, 0, "at least one"),
    ]:
        assert store.mount_segment(str(file), length, offset) == {"ret": -600, "segment_ids": []}
        assert why in store.last_error
    assert store.mount_segment(str(tmp_path / "none"), 4096)["ret"] == -600
    assert "No such file" in store.last_error
    assert store.unmount_segment(given["segment_ids"]) == 0
    assert other.is_exist(key) == 0
    for each in (store, other):
        each.close()


def test_memory_that_is_taken_back_with_grace_can_be_read_until_then(own_master: AMaster, key: str) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 4 << 20, "tcp", "", own_master.address) == 0
    given = store.allocate_and_mount_segment(4 << 20)
    assert (given["ret"], given["allocated_size"]) == (0, 4 << 20)
    assert store.put(key, b"x") == 0
    assert store.unmount_segment(given["segment_ids"], 3600) == 0
    assert store.get(key) == b"x"
    assert store.put(key + "2", b"x") != 0, "nothing new comes there"
    assert store.unmount_segment(given["segment_ids"]) == -600, "it is on its way out already"
    store.close()


def test_when_the_grace_is_over_the_memory_is_given_back(own_master: AMaster, key: str) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 4 << 20, "tcp", "", own_master.address) == 0
    given = store.allocate_and_mount_segment(4 << 20)
    assert store.put(key, b"x") == 0
    assert store.unmount_segment(given["segment_ids"], 1) == 0
    client = store._client
    assert client is not None
    deadline = time.monotonic() + 60
    while client.plane.offers or store.is_exist(key):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store.close()


def test_a_store_without_a_disk_has_none_to_take_back(store: MooncakeDistributedStore) -> None:
    assert store.unmount_local_disk_segment() == 0
    assert store.get_offload_rpc_read_count() == MooncakeDistributedStore().get_offload_rpc_read_count() == 0


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
