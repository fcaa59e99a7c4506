"""An etcd that has reached its quota: it reads, deletes and renews leases, and takes no writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from engine.etcd.credentials import EtcdCredentials
from p2pstore.cluster.records import ReplicaRecord
from p2pstore.cluster.registry import Registry, new_object
from p2pstore.doctor.metadata import check_metadata
from p2pstore.errors import MetadataFull
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import Absent, Delete, Put
from p2pstore.peers.checks import Check
from tests.p2pstore.metadata.servers import EtcdServer, etcdctl, need
from tests.p2pstore.samples import manifest_of

QUOTA = "3000000"
FILLER = 200_000
MOST = 200


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    binary = need(request.param)
    etcd = EtcdServer(binary, tmp_path_factory.mktemp("etcd"), "--quota-backend-bytes", QUOTA).start()
    yield etcd
    etcd.close()


@pytest.fixture
async def store(server: EtcdServer) -> AsyncIterator[EtcdStore]:
    made = EtcdStore([server.endpoint])
    yield made
    await made.close()


async def fill(store: EtcdStore) -> None:
    with contextlib.suppress(MetadataFull):
        for number in range(MOST):
            await store.commit([Put(f"filler/{number}", b"x" * FILLER)])
        raise AssertionError("it has no quota")


@pytest.fixture
async def lease(store: EtcdStore, server: EtcdServer) -> AsyncIterator[int]:
    """A lease, on which ``a/1`` to ``a/3`` hang, and an etcd that is full."""
    granted = await store.grant(600)
    await store.commit([Put(f"a/{number}", b"x", granted) for number in (1, 2, 3)])
    await fill(store)
    yield granted
    await drain(store, server)


async def drain(store: EtcdStore, server: EtcdServer) -> None:
    """What an administrator does about it."""
    for item in (await store.scan("filler/")).items:
        await store.commit([Delete(item.key)])
    now = (await store.scan("filler/")).revision
    for command in (["compact", str(now)], ["defrag"], ["alarm", "disarm"]):
        await asyncio.to_thread(etcdctl, server, *command)


async def examined(server: EtcdServer) -> dict[str, Check]:
    checks = await asyncio.to_thread(lambda: list(check_metadata(server.url, EtcdCredentials())))
    return {check.subject: check for check in checks}


async def test_reads_go_on(store: EtcdStore, lease: int) -> None:
    """Release 3.5.1 refuses transactions that only read, too."""
    found = await store.get_each(["a/2", "none", "a/1"])
    assert [kv.key if kv else None for kv in found] == ["a/2", None, "a/1"]
    pages = await store.scan_each(["a/", "none"], limit=2)
    assert [len(page.items) for page in pages] == [2, 0]
    assert (pages[0].more, pages[1].more) == (True, False)
    assert len({page.revision for page in pages}) == 1
    assert [kv.key for kv in (await store.scan("a/")).items] == ["a/1", "a/2", "a/3"]
    assert await store.keep_alive(lease) == 600


async def test_writes_say_that_there_is_no_space(store: EtcdStore, lease: int) -> None:
    for call in (store.commit([Put("b", b"x")]), store.commit([Put("b", b"x", lease)], [Absent("b")]), store.grant(9)):
        with pytest.raises(MetadataFull, match="has no space left, and takes no writes") as caught:
            await call
        assert caught.value.exit_code == 8
        assert "does not answer" not in str(caught.value)
        assert "etcdctl alarm disarm" in caught.value.hint


async def test_what_hangs_on_no_condition_can_be_deleted(store: EtcdStore, lease: int) -> None:
    assert await store.commit([Delete("a/1"), Delete("a/2"), Delete("none")])
    assert [kv.key for kv in (await store.scan("a/")).items] == ["a/3"]
    with contextlib.suppress(MetadataFull):  # of 3.5.1
        await store.commit([Delete("a/3")], [Absent("a/3")])
    assert await store.get("a/3"), "its condition does not hold"


async def test_the_alarm_is_seen(store: EtcdStore, lease: int, server: EtcdServer) -> None:
    info = await store.check()
    assert info.alarms == ("NOSPACE",)
    assert info.size > int(QUOTA) // 2
    checks = await examined(server)
    assert checks["metadata server"].verdict == "ok"
    alarms = checks["alarms of etcd"]
    assert (alarms.verdict, alarms.code) == ("failed", 8)
    assert "alarm NOSPACE" in alarms.detail
    assert "etcdctl alarm disarm" in alarms.advice


async def test_no_alarm(store: EtcdStore, server: EtcdServer) -> None:
    assert (await store.check()).alarms == ()
    checks = await examined(server)
    assert "alarms of etcd" not in checks


async def test_a_listing_needs_no_write(store: EtcdStore, server: EtcdServer) -> None:
    """An object that nobody holds any more is not listed, though it cannot be removed now."""
    registry = Registry(store, "a")
    registry.lease = await store.grant(600)
    for name in ("dead", "alive"):
        manifest = manifest_of({"": name.encode()})
        await registry.publish(new_object(name, "a", manifest))
    dead = manifest_of({"": b"dead"}).digest
    await fill(store)
    try:
        await store.commit([Delete(f"mooncake/p2p/v1/replicas/{dead}/a")])
        found, _ = await registry.listing("", limit=10, after="")
        assert [entry.record.name for entry in found] == ["alive"]
        with pytest.raises(MetadataFull):
            await registry.announce(dead, ReplicaRecord("a", "complete", "gold"))
    finally:
        await drain(store, server)
