"""Upstream's records, with values laid out as its releases write them."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.inspect import upstream
from p2pstore.inspect.values import Malformed

SEGMENT = {
    "name": "10.0.0.1:12345",
    "protocol": "tcp",
    "tcp_data_port": 15428,
    "tcp_proto_version": 2,
    "timestamp": "2026-08-22 10:11:12.131415",
    "rdma_server_name": "",
    "buffers": [
        {"name": "cpu:0", "addr": 140737488355328, "length": 3221225472},
        {"name": "cpu:1", "addr": 140741783322624, "length": 1073741824},
    ],
}
RDMA = {
    "name": "gpu-host",
    "protocol": "rdma",
    "devices": [{"name": "mlx5_0", "lid": 0, "gid": "00:00"}, {"name": "mlx5_1", "lid": 0, "gid": "00:01"}],
    "buffers": [{"name": "cpu:0", "addr": 4096, "length": 8192, "rkey": [1, 2], "lkey": [1, 2]}],
    "priority_matrix": {"cpu:0": [["mlx5_0"], ["mlx5_1"]]},
}
CHECKPOINT = {
    "name": "ckpt",
    "size": 200,
    "size_list": [150, 50],
    "max_shard_size": 100,
    "shards": [
        {"size": 100, "gold": [{"segment_name": "h1:1", "offset": 4096}], "replica_list": None},
        {
            "size": 50,
            "gold": [{"segment_name": "h1:1", "offset": 4196}],
            "replica_list": [{"segment_name": "h2:1", "offset": 9}],
        },
        {"size": 50, "gold": None, "replica_list": None},
    ],
}


def raw(data: object) -> bytes:
    # Upstream's C++ writer ends the JSON with a newline.
    return json.dumps(data).encode() + b"\n"


def decoded(key: str, value: bytes) -> dict[str, object]:
    matched = upstream.match(key, value)
    assert matched is not None
    return {"family": matched.family, **matched.fields, **upstream.decode(matched.family, value)}


@pytest.mark.parametrize("cluster", [None, "blue"])
def test_rpc_meta(cluster: str | None) -> None:
    key = "mooncake/" + (f"{cluster}/" if cluster else "") + "rpc_meta/10.0.0.1:12345"
    expected = {"family": "rpc_meta", "name": "10.0.0.1:12345", "address": "10.0.0.1:15001"}
    if cluster:
        expected["cluster"] = cluster
    assert decoded(key, raw({"ip_or_host_name": "10.0.0.1", "rpc_port": 15001})) == expected


def test_rpc_meta_over_ipv6() -> None:
    assert (
        decoded("mooncake/rpc_meta/n", raw({"ip_or_host_name": "fe80::1", "rpc_port": 1}))["address"] == "[fe80::1]:1"
    )


def test_a_tcp_segment() -> None:
    assert decoded("mooncake/ram/10.0.0.1:12345", raw(SEGMENT)) == {
        "family": "segment",
        "name": "10.0.0.1:12345",
        "protocol": "tcp",
        "buffers": 2,
        "bytes": 4 << 30,
        "tcp_data_port": 15428,
        "tcp_proto_version": 2,
        "timestamp": "2026-08-22 10:11:12.131415",
    }


def test_an_rdma_segment_in_a_cluster() -> None:
    fields = decoded("mooncake/blue/ram/gpu-host", raw(RDMA))
    assert fields["cluster"] == "blue"
    assert fields["devices"] == ["mlx5_0", "mlx5_1"]
    assert "tcp_data_port" not in fields


def test_a_segment_whose_name_has_a_slash_looks_like_anything() -> None:
    for name in ("checkpoint/x", "group/host-7", "tent-1/a/b"):
        fields = decoded(f"mooncake/{name}", raw(SEGMENT))
        assert (fields["family"], fields["name"]) == ("segment", name)


def test_a_checkpoint() -> None:
    assert decoded("mooncake/checkpoint/team/ckpt", raw(CHECKPOINT)) == {
        "family": "checkpoint",
        "name": "team/ckpt",
        "size": 200,
        "buffers": 2,
        "max_shard_size": 100,
        "shards": 3,
        "shards_without_holder": 1,
        "gold": {"h1:1": 2},
        "replicas": {"h2:1": 1},
    }


def test_tent_shows_its_scalars() -> None:
    value = raw({"name": "seg", "type": 0, "machine_id": "m", "detail": {"buffers": []}})
    fields = decoded("mooncake/tent/seg", value)
    assert fields == {"family": "tent", "name": "seg", "fields": {"name": "seg", "type": 0, "machine_id": "m"}}


def test_high_availability_keys() -> None:
    assert decoded("mooncake-store/blue/master_view", b"10.0.0.9:50051") == {
        "family": "master_view",
        "cluster": "blue",
        "address": "10.0.0.9:50051",
    }
    assert decoded("/oplog/blue/00000001", b"\x01ab") == {
        "family": "oplog",
        "cluster": "blue",
        "name": "00000001",
        "size": 3,
        "preview": "\\x01ab",
    }


@pytest.mark.parametrize(
    "key", ["mooncake/", "mooncake/x", "mooncake/a/b", "mooncake-store/blue/other", "/oplog/x", "x"]
)
def test_other_keys_are_unknown(key: str) -> None:
    assert upstream.match(key, b'{"some":"thing"}') is None


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("mooncake/rpc_meta/n", raw({"rpc_port": 5}), "'ip_or_host_name' is missing"),
        ("mooncake/rpc_meta/n", raw({"ip_or_host_name": "h", "rpc_port": 70000}), "no address: 'h', port 70000"),
        ("mooncake/rpc_meta/n", b"", "no JSON: .*"),
        ("mooncake/ram/n", raw({"name": "n"}), "'protocol' is missing"),
        ("mooncake/ram/n", raw({**SEGMENT, "buffers": [7]}), "'buffers' is no list of objects"),
        (
            "mooncake/ram/n",
            raw({**SEGMENT, "buffers": [{"name": "", "addr": 1, "length": 1}]}),
            "a buffer without name, address or length",
        ),
        ("mooncake/checkpoint/c", raw({**CHECKPOINT, "size": 7}), "its shards make 200 bytes, and it says 7"),
        ("mooncake/checkpoint/c", raw([1]), "a JSON list, no object"),
        ("mooncake-store/c/master_view", b"\xff", "its value is no text"),
        ("mooncake-store/c/master_view", b" ", "it names no address"),
    ],
)
def test_malformed_values_say_why(key: str, value: bytes, reason: str) -> None:
    matched = upstream.match(key, value)
    assert matched is not None
    with pytest.raises(Malformed, match=f"^{reason}$"):
        upstream.decode(matched.family, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "protocol", "buffers", "devices", "size", "size_list", "shards", "gold", "rpc_port"]
            ),
            inner,
        )
    ),
    max_leaves=15,
)


@given(
    st.sampled_from(["rpc_meta", "segment", "checkpoint", "tent", "master_view", "oplog"]),
    st.binary() | json_values.map(raw),
)
def test_any_value_decodes_or_is_malformed(family: str, value: bytes) -> None:
    with suppress(Malformed):
        json.dumps(upstream.decode(family, value), allow_nan=False)


@given(st.text(), st.binary())
def test_any_key_can_be_matched(key: str, value: bytes) -> None:
    upstream.match("mooncake/" + key, value)
    upstream.match(key, value)
