"""The compatible class's life, and what it tells of keys and memory: upstream's names and numbers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.rpc.codes import Code
from p2pstore.kv.client import writing
from p2pstore.kv.client.compat import MooncakeDistributedStore, ReplicateConfig
from tests.p2pstore.kv.client.conftest import MakePeer, Room
from tests.p2pstore.kv.client.masters import AMaster, OurMaster
from tests.p2pstore.kv.client.peers import value_of
from tests.ports import closed_port, reserved_port


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


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
    assert time.monotonic() - began < 60
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
