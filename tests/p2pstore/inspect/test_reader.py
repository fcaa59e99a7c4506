from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pstore.errors import BadConfig, MetadataUnavailable
from p2pstore.inspect import inspect, inspect_url, reader
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.memory import MemoryStore
from p2pstore.metadata.store import MetadataStore, Put
from tests.p2pstore.metadata.servers import EtcdServer, any_binary
from tests.ports import closed_port

DIGEST, OTHER = "a" * 64, "b" * 64


async def fill(store: MetadataStore) -> int:
    """A small deployment of ours beside one of upstream's; the lease of node n2."""

    def put(key: str, value: object, lease: int = 0) -> Put:
        return Put(key, json.dumps(value).encode(), lease)

    one, two = await store.grant(30), await store.grant(60)
    ours = "mooncake/p2p/v1/"
    record = {"manifest": DIGEST, "size": 5, "chunk_size": 4, "chunks": 2, "files": 1}
    await store.commit(
        [
            put(f"{ours}nodes/n1", {"node": "n1", "control": "10.0.0.1:1"}, one),
            put(f"{ours}nodes/n2", {"node": "n2", "control": "10.0.0.2:1"}, two),
            put(f"{ours}objects/team/model", {"name": "team/model", **record}),
            put(f"{ours}objects/copy", {"name": "copy", **record}),
            Put(f"{ours}objects/broken", b"{"),
            put(f"{ours}replicas/{DIGEST}/n1", {"state": "complete", "role": "gold", "node": "n1"}, one),
            put(f"{ours}replicas/{DIGEST}/n2", {"state": "partial", "role": "replica", "node": "n2"}, two),
            put(f"{ours}replicas/{OTHER}/n1", {"state": "complete", "role": "gold", "node": "n1"}, one),
            put("mooncake/rpc_meta/h", {"ip_or_host_name": "h", "rpc_port": 15000}),
            Put("mooncake/ram/h", b"garbage"),
            Put("mooncake-store/blue/master_view", b"10.0.0.9:50051", one),
            Put("/oplog/blue/1", b"\x00"),
            Put("mooncake/p2p/v2/future", b"\x00\xff"),
            Put("someone/else", b"not ours to show"),
        ]
    )
    return two


def check(tree: dict[str, object], n2_lease: int) -> None:
    nodes = tree["nodes"]
    assert isinstance(nodes, list)
    assert [node["node"] for node in nodes] == ["n1", "n2"]
    assert 50 <= nodes[1]["lease_left"] <= 60
    objects = {o["name"]: o for o in tree["objects"]}  # type: ignore[attr-defined]
    assert set(objects) == {"team/model", "copy", "broken"}
    for name in ("team/model", "copy"):
        assert "malformed" not in objects[name]
        assert objects[name]["lease_left"] is None
        assert [(r["node"], r["state"], r["role"]) for r in objects[name]["replicas"]] == [
            ("n1", "complete", "gold"),
            ("n2", "partial", "replica"),
        ]
    assert objects["broken"]["malformed"].startswith("no JSON")
    assert objects["broken"]["replicas"] == []
    assert [o["manifest"] for o in tree["orphans"]] == [OTHER]  # type: ignore[attr-defined]
    assert [(u["family"], "malformed" in u) for u in tree["upstream"]] == [  # type: ignore[attr-defined]
        ("segment", True),
        ("rpc_meta", False),
        ("master_view", False),
        ("oplog", False),
    ]
    assert tree["unknown"] == [
        {"preview": "\\x00\\xff", "key": "mooncake/p2p/v2/future", "lease_left": None, "size": 2}
    ]
    assert tree["truncated"] is False
    json.dumps(tree, allow_nan=False)


async def test_a_store_in_memory() -> None:
    store = MemoryStore()
    lease = await fill(store)
    check((await inspect(store)).to_json(), lease)


async def test_one_prefix_shows_what_is_under_it() -> None:
    store = MemoryStore()
    await fill(store)
    tree = (await inspect(store, "someone/")).to_json()
    assert [u["key"] for u in tree["unknown"]] == ["someone/else"]
    assert tree["nodes"] == tree["objects"] == tree["upstream"] == []


async def test_keys_beyond_the_limit_are_left_out_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_KEYS", 5)
    monkeypatch.setattr(reader, "PAGE", 2)
    store = MemoryStore()
    await fill(store)
    tree = await inspect(store)
    assert tree.truncated
    assert len(tree.nodes) + len(tree.objects) + len(tree.replicas) + len(tree.upstream) + len(tree.unknown) == 5


def test_a_real_etcd_from_code_without_an_event_loop(tmp_path: Path) -> None:
    import asyncio

    server = EtcdServer(any_binary(), tmp_path).start()

    async def prepare() -> int:
        store = EtcdStore([server.endpoint])
        lease = await fill(store)
        await store.close()
        return lease

    try:
        lease = asyncio.run(prepare())
        tree = inspect_url(server.url)
        check(tree, lease)
        assert tree["url"] == server.url
        assert tree["version"].startswith("3.")
        assert [u["key"] for u in inspect_url(server.url, prefix="someone/")["unknown"]] == ["someone/else"]
    finally:
        server.close()
    with pytest.raises(MetadataUnavailable):
        inspect_url(server.url)


def test_urls_that_mean_nothing() -> None:
    with pytest.raises(BadConfig):
        inspect_url("http://127.0.0.1:2379")
    with pytest.raises(MetadataUnavailable):
        inspect_url(f"etcd://127.0.0.1:{closed_port()}")
