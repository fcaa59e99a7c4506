"""What every metadata store does, run on memory and on real etcd servers of both releases that we support."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from p2pstore.errors import MetadataUnavailable, UsageError
from p2pstore.metadata.etcd import SCAN_PAGE, EtcdStore
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import (
    MAX_OPERATIONS,
    Absent,
    AbsentPrefix,
    Changed,
    Delete,
    HasValue,
    KeyValue,
    LeaseLost,
    MetadataStore,
    Put,
    Removed,
    Snapshot,
    Unchanged,
)
from tests.p2pstore.metadata.servers import EtcdServer, need
from tests.p2pstore.metadata.waiting import WAIT, following


class Backend:
    """Where handles on one store come from."""

    def __init__(self, server: EtcdServer | None) -> None:
        self.server = server
        self.memory = MemoryServer()

    def open(self) -> MetadataStore:
        if self.server is None:
            return MemoryStore(self.memory, name="contract")
        return EtcdStore([self.server.endpoint])


@pytest.fixture(scope="module", params=["memory", "3.4", "3.5"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer | None]:
    if request.param == "memory":
        yield None
        return
    etcd = EtcdServer(need(request.param), tmp_path_factory.mktemp("etcd")).start()
    yield etcd
    etcd.close()


@pytest.fixture
def backend(server: EtcdServer | None) -> Backend:
    return Backend(server)


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[MetadataStore]:
    handle = backend.open()
    page = await handle.scan("")
    for start in range(0, len(page.items), MAX_OPERATIONS):
        await handle.commit([Delete(item.key) for item in page.items[start : start + MAX_OPERATIONS]])
    yield handle
    await handle.close()


async def value(store: MetadataStore, key: str) -> bytes | None:
    item = await store.get(key)
    return item.value if item else None


async def keys(store: MetadataStore, prefix: str, **how: Any) -> list[str]:
    return [item.key for item in (await store.scan(prefix, **how)).items]


async def soon_over(store: MetadataStore, key: str) -> int:
    """Put a key with a lease that runs out by itself, soon; the lease."""
    while True:
        lease = await store.grant(2)
        try:
            await store.commit([Put(key, b"", lease)])
        except LeaseLost:
            continue  # on a slow day it had run out before
        return lease


async def until(condition: Any) -> None:
    async def poll() -> None:
        while not await condition():  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.1)

    await asyncio.wait_for(poll(), WAIT)


async def test_a_missing_key_is_none(store: MetadataStore) -> None:
    assert await store.get("a") is None
    assert (await store.scan("a")).items == ()


async def test_revisions_and_versions(store: MetadataStore) -> None:
    first = await store.commit([Put("a", b"1")])
    second = await store.commit([Put("a", b"2"), Put("b", b"")])
    assert first is not None
    assert second == first + 1
    assert await store.get("a") == KeyValue("a", b"2", create_revision=first, mod_revision=second, version=2)
    assert await store.get("b") == KeyValue("b", b"", create_revision=second, mod_revision=second, version=1)
    await store.commit([Delete("a")])
    third = await store.commit([Put("a", b"3")])
    assert third == second + 2
    assert await store.get("a") == KeyValue("a", b"3", create_revision=third, mod_revision=third, version=1)


async def test_a_commit_that_changes_nothing_makes_no_revision(store: MetadataStore) -> None:
    first = await store.commit([Put("a", b"1")])
    assert await store.commit([Delete("nothing")]) == first
    assert await store.commit([]) == first


async def test_scan_sorts_by_bytes_and_keeps_to_its_prefix(store: MetadataStore) -> None:
    names = ["n", "n/", "n/a", "n/ä", "n/z", "n/\U0001f600", "n0", "m", "n/\uffff"]
    await store.commit([Put(name, b"") for name in names])
    expected = sorted((n for n in names if n.startswith("n/")), key=str.encode)
    assert await keys(store, "n/") == expected
    assert await keys(store, "") == sorted(names, key=str.encode)
    assert await keys(store, "n/", after="n/a") == expected[2:]
    assert await keys(store, "n/", after="a") == expected
    assert await keys(store, "n/", after="z") == []


async def test_scan_by_pages(store: MetadataStore) -> None:
    names = [f"p/{i:02}" for i in range(7)]
    await store.commit([Put(name, b"") for name in names])
    seen: list[str] = []
    sizes = []
    while True:
        page = await store.scan("p/", limit=3, after=seen[-1] if seen else "")
        seen += [item.key for item in page.items]
        sizes.append(len(page.items))
        if not page.more:
            break
    assert seen == names
    assert sizes == [3, 3, 1]
    assert (await store.scan("p/", limit=7)).more is False
    assert (await store.scan("p/", limit=6)).more is True


async def test_a_long_scan_is_one_page(store: MetadataStore) -> None:
    names = [f"long/{i:05}" for i in range(SCAN_PAGE + 1)]
    for start in range(0, len(names), MAX_OPERATIONS):
        await store.commit([Put(name, b"") for name in names[start : start + MAX_OPERATIONS]])
    page = await store.scan("long/")
    assert [item.key for item in page.items] == names
    assert page.more is False


async def test_several_keys_in_one_call(store: MetadataStore) -> None:
    revision = await store.commit([Put("a", b"1"), Put("a/b", b"2"), Put("c", b"3")])
    found = await store.get_each(["c", "none", "a"])
    assert [item and (item.key, item.value, item.mod_revision) for item in found] == [
        ("c", b"3", revision),
        None,
        ("a", b"1", revision),
    ]
    assert await store.get_each([]) == []
    assert len(await store.get_each([f"k{i}" for i in range(MAX_OPERATIONS)])) == MAX_OPERATIONS
    with pytest.raises(UsageError):
        await store.get_each(["a"] * (MAX_OPERATIONS + 1))


async def test_several_prefixes_in_one_call(store: MetadataStore) -> None:
    revision = await store.commit([Put(f"p{p}/{i}", b"") for p in range(3) for i in range(p + 1)])
    pages = await store.scan_each(["p2/", "p0/", "none", "p1/"], limit=2)
    assert [[item.key for item in page.items] for page in pages] == [["p2/0", "p2/1"], ["p0/0"], [], ["p1/0", "p1/1"]]
    assert [page.more for page in pages] == [True, False, False, False]
    assert {page.revision for page in pages} == {revision}
    assert await store.scan_each([], limit=1) == []
    with pytest.raises(UsageError):
        await store.scan_each(["a"] * (MAX_OPERATIONS + 1), limit=1)


async def test_reading_makes_no_revision(store: MetadataStore) -> None:
    revision = await store.commit([Put("a", b"")])
    await store.get_each(["a", "b"])
    await store.scan_each(["a"], limit=1)
    assert (await store.scan("a")).revision == revision


async def test_absent(store: MetadataStore) -> None:
    assert await store.commit([Put("a", b"1")], [Absent("a")]) is not None
    assert await store.commit([Put("a", b"2")], [Absent("a")]) is None
    assert await value(store, "a") == b"1"


async def test_absent_prefix(store: MetadataStore) -> None:
    await store.commit([Put("r/1/n", b""), Put("r/22", b"")])
    assert await store.commit([Delete("x")], [AbsentPrefix("r/2/")]) is not None
    assert await store.commit([Put("bad", b"")], [AbsentPrefix("r/1/")]) is None
    assert await store.commit([Put("bad", b"")], [AbsentPrefix("r")]) is None
    assert await store.commit([Put("bad", b"")], [AbsentPrefix("")]) is None
    assert await store.get("bad") is None
    await store.commit([Delete("r/1/n")])
    assert await store.commit([Put("good", b"")], [AbsentPrefix("r/1/")]) is not None


async def test_unchanged(store: MetadataStore) -> None:
    revision = await store.commit([Put("a", b"1")])
    assert revision is not None
    assert await store.commit([Put("a", b"2")], [Unchanged("a", revision)]) is not None
    assert await store.commit([Put("a", b"3")], [Unchanged("a", revision)]) is None
    assert await store.commit([Put("c", b"")], [Unchanged("nothing", revision)]) is None
    assert await store.commit([Put("d", b"")], [Unchanged("nothing", 0)]) is not None
    assert await value(store, "a") == b"2"


async def test_has_value(store: MetadataStore) -> None:
    await store.commit([Put("a", b"1")])
    assert await store.commit([Put("b", b"")], [HasValue("a", b"2")]) is None
    assert await store.commit([Put("b", b"")], [HasValue("nothing", b"")]) is None
    assert await store.commit([Put("b", b"")], [HasValue("a", b"1")]) is not None


async def test_all_conditions_or_nothing(store: MetadataStore) -> None:
    await store.commit([Put("a", b"1")])
    conditions = [HasValue("a", b"1"), Absent("a")]
    assert await store.commit([Put("b", b""), Delete("a")], conditions) is None
    assert await keys(store, "") == ["a"]


async def test_one_of_many_wins(backend: Backend, store: MetadataStore) -> None:
    others = [backend.open() for _ in range(4)]
    try:
        results = await asyncio.gather(
            *(o.commit([Put("one", b"%d" % i)], [Absent("one")]) for i, o in enumerate(others))
        )
    finally:
        for other in others:
            await other.close()
    winners = [i for i, result in enumerate(results) if result is not None]
    assert len(winners) == 1
    assert await value(store, "one") == b"%d" % winners[0]


async def test_transactions_that_make_no_sense(store: MetadataStore) -> None:
    for operations in ([Put("a", b""), Put("a", b"")], [Put("a", b""), Delete("a")], [Put("", b"")], [Delete("")]):
        with pytest.raises(UsageError):
            await store.commit(operations)
    with pytest.raises(UsageError):
        await store.commit([Put(f"{i}", b"") for i in range(MAX_OPERATIONS + 1)])
    assert await store.commit([Put(f"{i}", b"") for i in range(MAX_OPERATIONS)]) is not None


async def test_a_lease_takes_its_keys_along(store: MetadataStore) -> None:
    lease = await store.grant(600)
    await store.commit([Put("l/1", b"", lease), Put("l/2", b"", lease), Put("l/3", b"")])
    item = await store.get("l/1")
    assert item is not None
    assert item.lease == lease
    assert 540 <= await store.time_left(lease) <= 600
    assert await store.keep_alive(lease) == 600
    await store.revoke(lease)
    assert await keys(store, "l/") == ["l/3"]
    assert await store.time_left(lease) == 0
    assert await store.keep_alive(lease) == 0
    await store.revoke(lease)


async def test_a_put_without_the_lease_detaches_the_key(store: MetadataStore) -> None:
    lease, other = await store.grant(30), await store.grant(30)
    await store.commit([Put("l/1", b"", lease), Put("l/2", b"", lease)])
    await store.commit([Put("l/1", b""), Put("l/2", b"", other)])
    await store.revoke(lease)
    assert await keys(store, "l/") == ["l/1", "l/2"]
    await store.revoke(other)
    assert await keys(store, "l/") == ["l/1"]


async def test_a_put_with_a_lost_lease(store: MetadataStore) -> None:
    lease = await store.grant(30)
    await store.revoke(lease)
    with pytest.raises(LeaseLost):
        await store.commit([Put("a", b"", lease), Put("b", b"")])
    with pytest.raises(LeaseLost):
        await store.commit([Put("a", b"", lease)], [Absent("a")])
    assert await keys(store, "") == []


async def test_a_lease_runs_out(store: MetadataStore) -> None:
    lease = await soon_over(store, "l")

    async def gone() -> bool:
        return await store.get("l") is None

    await until(gone)
    assert await store.keep_alive(lease) == 0
    assert await store.time_left(lease) == 0


async def test_a_watch_begins_with_a_snapshot(store: MetadataStore) -> None:
    revision = await store.commit([Put("w/1", b"1"), Put("v", b"")])
    assert revision is not None
    async with aclosing(store.watch("w/")) as events:  # type: ignore[type-var]
        first = await following(events)
        assert first == Snapshot((KeyValue("w/1", b"1", revision, revision, 1),), revision)


async def test_a_watch_tells_every_change_once_and_in_order(store: MetadataStore, backend: Backend) -> None:
    other = backend.open()
    async with aclosing(store.watch("w/")) as events:  # type: ignore[type-var]
        snapshot = await following(events)
        assert isinstance(snapshot, Snapshot)
        assert snapshot.items == ()
        lease = await other.grant(30)
        one = await other.commit([Put("w/1", b"1"), Put("other", b"")])
        two = await other.commit([Put("w/2", b"2", lease), Delete("w/1")])
        await other.revoke(lease)
        assert one is not None
        assert two is not None
        assert await following(events) == Changed(KeyValue("w/1", b"1", one, one, 1))
        same_transaction = [await following(events), await following(events)]
        assert Changed(KeyValue("w/2", b"2", two, two, 1, lease)) in same_transaction
        assert Removed("w/1", two) in same_transaction
        assert await following(events) == Removed("w/2", two + 1)
    await other.close()


async def test_a_watch_sees_a_lease_run_out(store: MetadataStore) -> None:
    async with aclosing(store.watch("w/")) as events:  # type: ignore[type-var]
        assert isinstance(await following(events), Snapshot)
        await soon_over(store, "w/1")
        assert isinstance(await following(events), Changed)
        event = await following(events)
        assert isinstance(event, Removed)
        assert event.key == "w/1"


async def test_closing_ends_running_watches(backend: Backend) -> None:
    handle = backend.open()
    started = asyncio.Event()

    async def watch() -> int:
        count = 0
        async for _ in handle.watch("w/"):
            count += 1
            started.set()
        return count

    task = asyncio.create_task(watch())
    await asyncio.wait_for(started.wait(), WAIT)
    await handle.close()
    assert await asyncio.wait_for(task, WAIT) == 1
    with pytest.raises(MetadataUnavailable):
        await handle.get("a")


async def test_check_names_the_server(store: MetadataStore, server: EtcdServer | None) -> None:
    info = await store.check()
    assert info.seconds >= 0
    if server is not None:
        assert info.endpoint == server.endpoint
        assert info.version.startswith(("3.4.", "3.5."))


async def test_foreign_keys_that_are_no_text(store: MetadataStore) -> None:
    key = b"odd/\xff\xfe".decode("utf-8", "surrogateescape")
    await store.commit([Put(key, b"\x00\xff")])
    assert await keys(store, "odd/") == [key]
    assert await value(store, key) == b"\x00\xff"
