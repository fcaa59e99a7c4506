"""The compatible class's sessions: values that are read and written in parts, and what is compared of them."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import Replicas
from p2pstore.kv.client import checksums, sessions
from p2pstore.kv.client.compat import MooncakeDistributedStore, ReplicateConfig
from tests.p2pstore.kv.client.conftest import SEGMENT, MakePeer, Room
from tests.p2pstore.kv.client.masters import AMaster
from tests.p2pstore.kv.client.peers import value_of


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


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


def test_a_session_makes_no_checksum_where_values_are_put_with_another(
    master: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CRC-64 cannot be made piece by piece."""
    monkeypatch.setenv(checksums.UPSTREAMS_SWITCH, "1")
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, SEGMENT, "tcp", "", master) == 0, store.last_error
    client = store._client
    assert client is not None
    room = Room(100)
    assert store.batch_put_session_start([key], [100]) == [0]
    assert store.batch_put_from_multi_buffer_ranges([key], [[room.ptr]], [[100]], [[0]]) == [0]
    assert store.batch_put_session_end([key]) == [0]
    (found,) = client.master.replicas([key])
    assert isinstance(found, Replicas)
    assert found.checksum is None
    assert store.get(key) == bytes(100)
    store.close()


def test_what_a_session_reaches_does_not_count_as_dead_any_more(store: MooncakeDistributedStore, key: str) -> None:
    client = store._client
    assert client is not None
    room = Room(100)
    client.dead.failed(store.get_hostname(), "it stood still")
    assert store.batch_put_session_start([key], [100]) == [0]
    assert store.batch_put_from_multi_buffer_ranges([key], [[room.ptr]], [[100]], [[0]]) == [0]
    assert client.dead.report() == {}
    assert store.batch_put_session_end([key]) == [0]
    client.dead.failed(store.get_hostname(), "it stood still")
    assert store.batch_get_session_start([key]) == [0]
    assert store.batch_get_into_multi_buffer_ranges([key], [[room.ptr]], [[50]], [[50]]) == [50]
    assert client.dead.report() == {}
