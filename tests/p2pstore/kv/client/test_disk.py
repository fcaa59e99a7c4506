"""Values that leave memory for a client's disk, and come back: with our master, and with the real one."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pstore.kv.client.store import Store
from p2pstore.kv.errors import MasterUnavailable, PoolFull, TierTaken, ValueUnreadable
from tests.p2pstore.kv.client.conftest import MakePeer, MakeStore
from tests.p2pstore.kv.client.masters import AMaster, OurMaster, RealMaster
from tests.p2pstore.kv.client.peers import value_of
from tests.refusing import RefusingFileSystem

MEMORY = 16 << 20
SIZE = 1 << 20
COUNT = 24
TOGETHER = 8
"""So many are in memory before the disk has them."""

WAIT = 60.0


@pytest.fixture(params=["our master", "the real master"])
def master(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AMaster]:
    """One that has values written to disks as they are put, and takes back to memory what is read there twice."""
    log = tmp_path / "master.log"
    made: AMaster
    if request.param == "our master":
        made = OurMaster(log, offload=True, promotion_on_hit=True, lease_ms=500, client_ttl=10.0)
    else:
        made = RealMaster(
            log, "--enable_offload=true", "--promotion_on_hit=true", "--default_kv_lease_ttl=500", "--client_ttl=10"
        )
    yield made
    made.kill()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + WAIT
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def put(store: Store, key: str, size: int = SIZE) -> None:
    """Put a value; while the pool is full others are on their way to the disk."""
    end = time.monotonic() + WAIT
    while True:
        try:
            store.put(key, value_of(key, size))
        except PoolFull:
            assert time.monotonic() < end, "it stays full"
            time.sleep(0.05)
        else:
            return


def fill(store: Store) -> list[str]:
    """Put more than there is memory for, and see it on the disk."""
    kept = store._client.disk
    assert kept is not None
    until(lambda: kept.mounted)
    keys = [f"k{number}" for number in range(COUNT)]
    for number, key in enumerate(keys, 1):
        put(store, key)
        if number % TOGETHER == 0:
            until(lambda number=number: len(kept) >= number)
    return keys


def kinds(store: Store, key: str) -> list[str]:
    return [type(each.place).__name__ for each in store.replicas(key).replicas]


def on_disk_alone(store: Store, keys: list[str]) -> list[str]:
    return [key for key in keys if kinds(store, key) == ["LocalDisk"]]


def test_a_disk_that_is_taken_back_leaves_the_pool_and_keeps_its_values(
    master: AMaster, make_store: MakeStore, disk: Path
) -> None:
    giver = make_store(master.address, segment_size=MEMORY, disk=disk)
    keys = fill(giver)
    evicted = on_disk_alone(giver, keys)
    kept = giver._client.disk
    assert kept is not None
    before = len(kept)
    kept.leave()
    until(lambda: giver.exists_many(evicted) == [False] * len(evicted))
    assert len(kept) == before
    assert not kept.mounted
    put(giver, "new")  # the memory is still there


def test_what_was_evicted_is_read_from_disk_and_comes_back_to_memory(
    master: AMaster, make_store: MakeStore, disk: Path
) -> None:
    giver = make_store(master.address, segment_size=MEMORY, disk=disk)
    reader = make_store(master.address, segment_size=0, neighbours=False)
    keys = fill(giver)
    evicted = on_disk_alone(reader, keys)
    assert evicted
    for store in (giver, reader):
        assert store.get_many(keys) == [value_of(key, SIZE) for key in keys]
        assert store._client.reader.counts.disk_hits >= 1
    key = evicted[0]
    room = bytearray(SIZE)
    assert reader.get_into(key, room) == SIZE
    assert room == value_of(key, SIZE)
    assert reader.get_range(key, 70_000, 30_000) == value_of(key, SIZE)[70_000:100_000]
    assert giver.get_range(key, 70_000, 30_000) == value_of(key, SIZE)[70_000:100_000]
    for other in set(keys).difference(evicted):
        giver.remove_matching(f"^{other}$", force=True)  # so that there is room again
    waiting = on_disk_alone(reader, evicted)  # none where all that were read above are back already

    def came_back() -> bool:
        assert [reader.get(each) for each in waiting] == [value_of(each, SIZE) for each in waiting]
        return not waiting or "Memory" in kinds(reader, waiting[0])

    until(came_back)
    assert giver._client.disk is not None
    until(lambda: giver._client.disk.promoted)
    until(lambda: not giver._client.disk._server.lying_ready)
    assert (giver.failures, reader.failures) == ((), ())


def test_a_client_that_comes_back_has_what_is_on_its_disk(
    master: AMaster, make_store: MakeStore, make_peer: MakePeer, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pstore.kv.client.disk.TELL_AGAIN_SECONDS", (2.0, 5.0, 10.0, 20.0))
    peer = make_peer(master.address, segment_size=MEMORY, disk=str(disk))
    reader = make_store(master.address, segment_size=0)
    until((disk / "values.log").exists)
    keys = [f"p{number}" for number in range(3)]
    for key in keys:
        put(reader, key)
    until(lambda: all("LocalDisk" in kinds(reader, key) for key in keys))
    peer.kill()
    with make_store(master.address, segment_size=MEMORY, disk=disk) as again:
        assert again._client.disk is not None
        until(lambda: len(again._client.disk) == 3)

        def readable() -> bool:
            found = reader.exists_many(keys)
            if not all(found):
                return False
            try:
                return reader.get_many(keys) == [value_of(key, SIZE) for key in keys]
            except ValueUnreadable:  # the master still tells the address of the one that died
                return False

        until(readable)


def test_a_master_that_was_started_anew_is_told_what_is_there(
    master: AMaster, make_store: MakeStore, disk: Path
) -> None:
    store = make_store(master.address, segment_size=MEMORY, disk=disk)
    keys = fill(store)
    master.kill()
    master.start()

    def told() -> bool:
        try:
            return all(store.exists_many(keys))
        except MasterUnavailable:
            return False

    until(told)
    assert store.get_many(keys) == [value_of(key, SIZE) for key in keys]


def test_a_directory_is_one_client_s(master: AMaster, make_store: MakeStore, disk: Path) -> None:
    make_store(master.address, segment_size=0, disk=disk)
    with pytest.raises(TierTaken, match="another process keeps values on disk in"):
        make_store(master.address, segment_size=0, disk=disk)


def test_a_disk_that_fails_is_said_and_the_pool_goes_on(
    make_store: MakeStore, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    master = OurMaster(tmp_path / "master.log", offload=True, lease_ms=200)
    try:
        fs = RefusingFileSystem(disk, monkeypatch)
        store = make_store(master.address, segment_size=MEMORY, disk=disk)
        kept = store._client.disk
        assert kept is not None
        until(lambda: kept.mounted)
        fs.refuses("pwrite", errno.EIO)
        for number in range(COUNT):  # more than there is memory for
            put(store, f"k{number}")
        until(lambda: kept.failing)
        assert kept.failing == "input/output error"
        assert f"values are not written to {disk}: input/output error" in caplog.text
        assert store.get(f"k{COUNT - 1}") == value_of(f"k{COUNT - 1}", SIZE)
    finally:
        master.kill()


def test_what_rotted_on_disk_is_not_given_out_and_the_master_is_told(
    master: AMaster, make_store: MakeStore, disk: Path
) -> None:
    store = make_store(master.address, segment_size=MEMORY, disk=disk)
    keys = fill(store)
    (key, *_) = on_disk_alone(store, keys)
    kept = store._client.disk
    assert kept is not None
    place = kept._log._ring.places[f"default\0{key}"]
    descriptor = os.open(disk / "values.log", os.O_RDWR)
    os.pwrite(descriptor, b"rot", place.offset + 50_000)
    os.close(descriptor)
    with pytest.raises(ValueUnreadable, match="on this client's disk no more"):
        store.get(key)
    until(lambda: not store.exists(key))
    others = [each for each in keys if each != key]
    assert store.get_many(others) == [value_of(each, SIZE) for each in others]


def test_remove_all_clears_the_disk(master: AMaster, make_store: MakeStore, disk: Path) -> None:
    store = make_store(master.address, segment_size=MEMORY, disk=disk)
    fill(store)
    store.remove_all(force=True)
    kept = store._client.disk
    assert kept is not None
    until(lambda: not len(kept))


def test_a_master_that_uses_no_disks_is_named(
    make_store: MakeStore, disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    master = OurMaster(tmp_path / "master.log")
    try:
        store = make_store(master.address, segment_size=MEMORY, disk=disk)
        until(lambda: "uses no disks of clients" in caplog.text)
        assert store.put("k", b"value")
        assert store.get("k") == b"value"
    finally:
        master.kill()


def test_the_end_of_a_client_takes_its_disk_out_of_the_pool(master: AMaster, make_store: MakeStore, disk: Path) -> None:
    store = make_store(master.address, segment_size=MEMORY, disk=disk)
    reader = make_store(master.address, segment_size=0)
    key = on_disk_alone(reader, fill(store))[0]
    store.close()
    until(lambda: not reader.exists(key))
