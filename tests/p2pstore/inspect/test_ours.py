from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.cluster.records import PREFIX
from p2pstore.inspect import ours
from p2pstore.inspect.values import Malformed

DIGEST = "a" * 64
NODE = {
    "node": "n1",
    "control": "10.0.0.1:7000",
    "segment": "10.0.0.1:7001",
    "data_port": 7002,
    "local_socket": None,
    "host_id": "0447e46c",
    "zone": "",
    "version": "0.1.0",
    "started": 1700000000.5,
}
OBJECT = {
    "name": "llama/70b",
    "manifest": DIGEST,
    "size": 1 << 40,
    "chunk_size": 1 << 24,
    "chunks": 65536,
    "files": 30,
    "kind": "directory",
    "hash": "xxh3_128",
    "creator": "n1",
    "created": 1700000000,
}
REPLICA = {"state": "partial", "role": "replica", "node": "n2"}


def test_families() -> None:
    assert ours.family_of("mooncake/p2p/v1/nodes/n1") == "node"
    assert ours.family_of("mooncake/p2p/v1/objects/a/b/c") == "object"
    assert ours.family_of(f"mooncake/p2p/v1/replicas/{DIGEST}/n1") == "replica"
    assert ours.family_of(f"mooncake/p2p/v1/versions/a/b@{DIGEST}") == "version"
    assert ours.family_of("mooncake/p2p/v1/tags/a/b:c") == "tag"
    for key in ("mooncake/p2p/v1/nodes", "mooncake/p2p/v1/nodes/", "mooncake/p2p/v1/other/x", "mooncake/ram/x", ""):
        assert ours.family_of(key) == ""


def test_a_node() -> None:
    assert ours.decode("node", "mooncake/p2p/v1/nodes/n1", json.dumps(NODE).encode()) == NODE


def test_an_object_whose_name_has_slashes() -> None:
    assert ours.decode("object", "mooncake/p2p/v1/objects/llama/70b", json.dumps(OBJECT).encode()) == OBJECT


def test_an_earlier_version_is_an_object_under_another_key() -> None:
    key = f"mooncake/p2p/v1/versions/llama/70b@{DIGEST}"
    assert ours.decode("version", key, json.dumps(OBJECT).encode()) == OBJECT
    with pytest.raises(Malformed):
        ours.decode("version", key.replace("a" * 64, "b" * 64), json.dumps(OBJECT).encode())


def test_a_tag() -> None:
    record = {**OBJECT, "tag": "v1", "by": "n1", "moved": 1700000001}
    assert ours.decode("tag", "mooncake/p2p/v1/tags/llama/70b:v1", json.dumps(record).encode()) == record
    with pytest.raises(Malformed):
        ours.decode("tag", "mooncake/p2p/v1/tags/llama/70b:v2", json.dumps(record).encode())


def test_a_replica_takes_its_manifest_from_the_key() -> None:
    fields = ours.decode("replica", f"mooncake/p2p/v1/replicas/{DIGEST}/n2", json.dumps(REPLICA).encode())
    assert fields == {**REPLICA, "manifest": DIGEST}


@pytest.mark.parametrize(
    ("family", "key", "change", "reason"),
    [
        ("node", "nodes/n1", {"control": 5}, "'control' is no text"),
        ("node", "nodes/n2", {}, "'node' is 'n1', and its key says 'n2'"),
        ("object", "objects/llama/70b", {"size": -1}, "'size' is no whole number"),
        ("object", "objects/llama/70b", {"size": True}, "'size' is no whole number"),
        ("object", "objects/other", {}, "'name' is 'llama/70b', and its key says 'other'"),
        ("replica", f"replicas/{DIGEST}/n2", {"state": "done"}, "'state' is none of complete, partial"),
        ("replica", f"replicas/{DIGEST}/n2", {"role": None}, "'role' is no text"),
    ],
)
def test_malformed_records_say_why(family: str, key: str, change: dict[str, object], reason: str) -> None:
    data = {"node": NODE, "object": OBJECT, "replica": REPLICA}[family]
    with pytest.raises(Malformed, match=f"^{reason}$"):
        ours.decode(family, PREFIX + key, json.dumps({**data, **change}).encode())


@given(st.sampled_from(["node", "object", "replica"]), st.text(), st.binary())
def test_any_value_decodes_or_is_malformed(family: str, name: str, value: bytes) -> None:
    head = {"node": "nodes", "object": "objects", "replica": "replicas"}[family]
    with suppress(Malformed):
        assert isinstance(ours.decode(family, f"{PREFIX}{head}/{name}", value), dict)
