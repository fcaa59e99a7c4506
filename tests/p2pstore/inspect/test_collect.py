"""gc on stores in memory and in a real etcd; with real handshake servers, alive and ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engine.protocol.segment import SegmentDescriptor
from engine.serving.handshake_server import HandshakeServer
from p2pstore.inspect import collect, collect_url, inspect, probing, reader
from p2pstore.inspect.staleness import ProbeAnswer
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.memory import MemoryStore
from p2pstore.metadata.store import Delete, MetadataStore, Put
from tests.p2pstore.inspect.test_staleness import DIGEST, checkpoint, obj, segment
from tests.p2pstore.metadata.servers import EtcdServer, any_binary
from tests.ports import closed_port

DEAD_DIGEST = "cd" * 32


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(any_binary(), tmp_path_factory.mktemp("etcd")).start()
    yield server
    server.close()


@pytest.fixture(params=["memory", "etcd"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[MetadataStore]:
    made: MetadataStore = MemoryStore()
    if request.param == "etcd":
        made = EtcdStore([request.getfixturevalue("etcd").endpoint])
    yield made
    for item in (await made.scan("")).items:
        await made.commit([Delete(item.key)])
    await made.close()


@pytest.fixture
def alive() -> Iterator[int]:
    server = HandshakeServer(lambda: SegmentDescriptor("x", 1), "127.0.0.1")
    server.start()
    yield server.port
    server.close()


@pytest.fixture
def dead() -> int:
    return closed_port()


def rpc(name: str, port: int) -> Put:
    return put(f"mooncake/rpc_meta/{name}", {"ip_or_host_name": "127.0.0.1", "rpc_port": port})


def put(key: str, value: Any, lease: int = 0) -> Put:
    return Put(key, value if isinstance(value, bytes) else json.dumps(value).encode(), lease)


async def deployment(store: MetadataStore, alive: int, dead: int) -> set[str]:
    """Fill a store; the keys that must stay."""
    stay = [
        rpc("alive", alive),
        *(Put(each.key, each.value) for each in (
            segment("alive"), checkpoint("shared", [["alive"]], [["dead"]]), obj("held"), segment("odd", protocol="nvmeof"),
        )),
        put(f"mooncake/p2p/v1/replicas/{DIGEST}/n1", {"node": "n1", "state": "complete", "role": "gold"}),
        put("mooncake/tent/x", {"a": 1}),
        put("mooncake-store/c/master_view", f"127.0.0.1:{alive}".encode()),
        put("/oplog/c/1", b"x"),
        put("mooncake/broken/rpc_meta/y", b"{"),
        put("mooncake/what", b"ever"),
        put("someone/else", b"x"),
    ]  # fmt: skip
    go = [
        rpc("dead", dead),
        *(Put(each.key, each.value) for each in (
            segment("dead"), segment("orphan"), checkpoint("lost", [["dead"]], [[f"127.0.0.1:{dead}"]]),
            obj("gone", DEAD_DIGEST),
        )),
        put("mooncake-store/d/master_view", f"127.0.0.1:{dead}".encode()),
    ]  # fmt: skip
    await store.commit([*stay, *go])
    return {each.key for each in stay}


async def keys(store: MetadataStore) -> set[str]:
    return {item.key for item in (await store.scan("")).items}


STALE = {
    "mooncake/rpc_meta/dead",
    "mooncake/ram/dead",
    "mooncake/ram/orphan",
    "mooncake/checkpoint/lost",
    "mooncake/p2p/v1/objects/gone",
    "mooncake-store/d/master_view",
}


def named(rows: list[dict[str, str]]) -> set[str]:
    return {row["key"] for row in rows}


async def test_a_dry_run_says_what_is_stale_and_removes_nothing(store: MetadataStore, alive: int, dead: int) -> None:
    stay = await deployment(store, alive, dead)
    found = await collect(store)
    assert named(found["stale"]) == STALE
    assert (found["dry_run"], found["removed"], found["changed"]) == (True, [], [])
    assert found["alive"] == 5
    families = {row["key"]: row["family"] for row in found["stale"]}
    assert families["mooncake/checkpoint/lost"] == "checkpoint"
    assert families["mooncake/p2p/v1/objects/gone"] == "object"
    assert all(row["why"] for row in found["stale"])
    assert await keys(store) == stay | STALE


async def test_what_is_stale_goes_and_all_else_stays(store: MetadataStore, alive: int, dead: int) -> None:
    stay = await deployment(store, alive, dead)
    found = await collect(store, act=True)
    assert (named(found["removed"]), found["changed"], found["stale"]) == (STALE, [], [])
    assert await keys(store) == stay
    assert named((await collect(store, act=True))["removed"]) == set()


async def test_a_prefix_narrows_what_goes_but_not_what_is_known(store: MetadataStore, alive: int, dead: int) -> None:
    stay = await deployment(store, alive, dead)
    found = await collect(store, "mooncake/ram/", act=True)
    assert named(found["removed"]) == {"mooncake/ram/dead", "mooncake/ram/orphan"}
    assert await keys(store) == stay | STALE - named(found["removed"])


CHANGES = {
    "mooncake/rpc_meta/dead": {"mooncake/rpc_meta/dead", "mooncake/ram/dead", "mooncake/checkpoint/lost"},
    "mooncake/ram/dead": {"mooncake/ram/dead", "mooncake/rpc_meta/dead"},
    "mooncake/checkpoint/lost": {"mooncake/checkpoint/lost"},
    "mooncake/rpc_meta/orphan": {"mooncake/ram/orphan"},
    f"mooncake/p2p/v1/replicas/{DEAD_DIGEST}/n2": {"mooncake/p2p/v1/objects/gone"},
    "mooncake/rpc_meta/127.0.0.1:{dead}": {"mooncake/checkpoint/lost"},
    "mooncake-store/d/master_view": {"mooncake-store/d/master_view"},
}
"""What somebody writes while gc thinks, and the stale keys that must stay for it."""


@pytest.mark.parametrize("changed", CHANGES)
async def test_what_changed_meanwhile_stays(
    store: MetadataStore, alive: int, dead: int, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay = await deployment(store, alive, dead)
    key = changed.format(dead=dead)
    real = probing.probe

    async def probe_and_change(*args: Any, **kwargs: Any) -> Any:
        answers = await real(*args, **kwargs)
        before = await store.get(key)
        await store.commit([Put(key, before.value if before else b"{}")])
        return answers

    monkeypatch.setattr(probing, "probe", probe_and_change)
    found = await collect(store, act=True)
    assert named(found["changed"]) == CHANGES[changed]
    assert named(found["removed"]) == STALE - CHANGES[changed]
    assert await keys(store) == stay | CHANGES[changed] | {key}


async def test_what_is_out_of_reach_goes_only_when_that_is_said(
    store: MetadataStore, alive: int, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployment(store, alive, dead)
    real = probing.ask
    monkeypatch.setattr(
        probing, "ask", lambda endpoint, *rest: ProbeAnswer.SILENT if endpoint.port == dead else real(endpoint, *rest)
    )
    found = await collect(store, act=True)
    assert named(found["removed"]) == {"mooncake/ram/orphan", "mooncake/p2p/v1/objects/gone"}
    assert named(found["unreachable"]) == STALE - named(found["removed"])
    found = await collect(store, act=True, unreachable=True)
    assert named(found["removed"]) == STALE - {"mooncake/ram/orphan", "mooncake/p2p/v1/objects/gone"}
    assert found["unreachable"] == []


async def test_a_record_with_a_lease_is_left_to_it(store: MetadataStore, dead: int) -> None:
    lease = await store.grant(60)
    await store.commit([put("mooncake-store/c/master_view", f"127.0.0.1:{dead}".encode(), lease)])
    found = await collect(store, act=True)
    assert (found["removed"], named(found["leased"])) == ([], {"mooncake-store/c/master_view"})
    assert await keys(store) == {"mooncake-store/c/master_view"}


async def test_many_segments_of_one_process_go_in_parts(store: MetadataStore, dead: int) -> None:
    await store.commit([rpc("a/b", dead)])
    await store.commit([Put(f"mooncake/c{i}/ram/x", segment("x").value) for i in range(100)])
    await store.commit(
        [put(f"mooncake/c{i}/rpc_meta/x", {"ip_or_host_name": "127.0.0.1", "rpc_port": dead}) for i in range(100)]
    )
    assert len((await collect(store, act=True))["removed"]) == 201
    assert await keys(store) == set()


async def test_inspection_marks_what_is_stale(store: MetadataStore, alive: int, dead: int) -> None:
    await deployment(store, alive, dead)
    tree = (await inspect(store, probe=True)).to_json()
    states = {entry["key"]: entry.get("state") for entry in (*tree["upstream"], *tree["objects"])}
    assert {key for key, state in states.items() if state == "stale"} == STALE
    assert states["mooncake/ram/alive"] == states["mooncake/checkpoint/shared"] == "alive"
    assert states["mooncake/tent/x"] is None
    narrow = (await inspect(store, "mooncake/ram/", probe=True)).to_json()
    assert {entry["key"]: entry["state"] for entry in narrow["upstream"]} == {
        "mooncake/ram/alive": "alive", "mooncake/ram/dead": "stale", "mooncake/ram/orphan": "stale",
        "mooncake/ram/odd": "unknown",
    }  # fmt: skip
    assert "state" not in (await inspect(store)).to_json()["upstream"][0]


async def test_objects_are_judged_by_the_store_where_not_all_keys_were_read(
    store: MetadataStore, alive: int, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployment(store, alive, dead)
    monkeypatch.setattr(reader, "MAX_KEYS", 3)
    found = await collect(store, "mooncake/p2p/v1/objects/", act=True)
    assert named(found["removed"]) == {"mooncake/p2p/v1/objects/gone"}
    # What was not read is not taken for absent.
    found = await collect(store, "mooncake/ram/")
    assert (found["stale"], found["truncated"]) == ([], True)


async def test_too_many_endpoints_are_not_asked_and_that_is_said(
    store: MetadataStore, alive: int, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployment(store, alive, dead)
    monkeypatch.setattr(reader, "MAX_PROBES", 1)
    tree = (await inspect(store, probe=True)).to_json()
    assert tree["unprobed"] > 1
    assert all("state" not in entry for entry in tree["upstream"])


def test_from_code_without_an_event_loop(etcd: EtcdServer) -> None:
    found = collect_url(etcd.url)
    assert (found["url"], found["dry_run"]) == (etcd.url, True)
