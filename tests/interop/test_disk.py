"""Values on disks: ours read by the real client, and the real one's by ours, on either master."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pstore.kv.client.store import Store
from p2pstore.kv.errors import PoolFull
from tests.interop.store_client import digest, value_of
from tests.interop.test_store import Client
from tests.interop.wheels import OLD, Wheel, wheel
from tests.p2pstore.kv.client.masters import AMaster, OurMaster, RealMaster

SIZE = 2 << 20
WAIT = 60.0


@pytest.fixture(params=["our master", "the real master"])
def master(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    log = tmp_path / "master.log"
    made: AMaster
    if request.param == "our master":
        made = OurMaster(log, offload=True, lease_ms=200)
    else:
        made = RealMaster(log, "--enable_offload=true", "--default_kv_lease_ttl=200")
    yield made.address
    made.kill()


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def kinds(store: Store, key: str) -> list[str]:
    return [type(each.place).__name__ for each in store.replicas(key).replicas]


def are_read(keys: list[str], hashes: list[str]) -> bool:
    """Whether all were found. The real client finds nothing where a busy machine keeps it waiting; it reads nothing else."""
    wanted = [digest(value_of(key, SIZE)) for key in keys]
    assert all(found in (digest(b""), right) for found, right in zip(hashes, wanted, strict=True))
    return hashes == wanted


def test_the_real_client_reads_what_is_on_our_disk(master: str, tmp_path: Path) -> None:
    with Store(master, segment_size=16 << 20, disk=tmp_path / "disk") as store:
        kept = store._client.disk
        assert kept is not None
        until(lambda: kept.mounted)
        real = Client(wheel("newest"), "P2PHANDSHAKE", master, offers=False)
        try:
            keys = [f"k{number}" for number in range(12)]
            for number, key in enumerate(keys, 1):
                until(lambda key=key: real("put", key=key, length=SIZE) == {"code": 0})
                if number % 4 == 0:
                    until(lambda number=number: len(kept) >= number)
            assert any(kinds(store, key) == ["LocalDisk"] for key in keys)
            for key in keys:
                until(lambda key=key: are_read([key], [real("get", key=key)["sha256"]]))
            until(lambda: are_read(keys, real("get_batch", keys=keys)["sha256"]))
            until(lambda: not kept._server.lying_ready)
        finally:
            real.close()


@pytest.fixture
def our_master(tmp_path: Path) -> Iterator[str]:
    made = OurMaster(tmp_path / "master.log", offload=True, lease_ms=200)
    yield made.address
    made.kill()


def test_ours_reads_what_is_on_the_disk_of_an_older_client(our_master: str, tmp_path: Path) -> None:
    """Which calls values by their key alone. Only ours serves both."""
    reads_the_disk_of(wheel(OLD), our_master, tmp_path)


def test_ours_reads_what_is_on_the_disk_of_the_real_client(master: str, tmp_path: Path) -> None:
    reads_the_disk_of(wheel("newest"), master, tmp_path)


def reads_the_disk_of(installed: Wheel, master: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    settings = {
        "STORE_DISK": str(disk),
        "MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS": "1",
        "MOONCAKE_OFFLOAD_STORAGE_BACKEND_DESCRIPTOR": "file_per_key_storage_backend",
        "MOONCAKE_OFFLOAD_LOCAL_BUFFER_SIZE_BYTES": str(64 << 20),
    }
    real = Client(installed, "P2PHANDSHAKE", master, offers=True, **settings)
    try:
        with Store(master, segment_size=0) as store:
            keys = [f"k{number}" for number in range(44)]  # it gives room for 32
            for number, key in enumerate(keys, 1):

                def put(key: str = key) -> bool:
                    try:
                        return store.put(key, value_of(key, SIZE)) or True
                    except PoolFull:
                        return False

                until(put)
                if number % 8 == 0:
                    until(lambda key=key: "LocalDisk" in kinds(store, key))
            assert any(kinds(store, key) == ["LocalDisk"] for key in keys)
            assert store.get_many(keys) == [value_of(key, SIZE) for key in keys]
            assert store._client.reader.counts.disk_hits
    finally:
        real.close()
