"""Any bytes in the metadata store are a record or nothing; a record survives the journey."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.cluster.records import (
    MAX_NUMBER,
    MAX_RECORD_BYTES,
    NodeRecord,
    ObjectRecord,
    ReplicaRecord,
    decode,
    distance,
    encode,
    node_key,
    object_key,
    peer_address,
    replica_key,
    replicas_prefix,
)
from p2pstore.errors import RemoteProtocolError
from p2pstore.swarm.gateway import ABROAD, ELSEWHERE, SAME_HOST, SAME_ZONE

KINDS = [NodeRecord, ObjectRecord, ReplicaRecord]
WHOLE = st.integers(0, MAX_NUMBER)
TIMES = st.floats(0, 1e12)
RECORDS = st.one_of(
    st.builds(NodeRecord, data_port=WHOLE, started=TIMES),
    st.builds(ObjectRecord, size=WHOLE, chunk_size=WHOLE, chunks=WHOLE, files=WHOLE, created=TIMES),
    st.builds(ReplicaRecord),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
NAMES = sorted({f.name for kind in KINDS for f in fields(kind)})


def test_keys() -> None:
    assert node_key("n") == "mooncake/p2p/v1/nodes/n"
    assert object_key("a/b") == "mooncake/p2p/v1/objects/a/b"
    assert replica_key("m", "n") == replicas_prefix("m") + "n" == "mooncake/p2p/v1/replicas/m/n"


@given(RECORDS)
def test_round_trip(record: NodeRecord | ObjectRecord | ReplicaRecord) -> None:
    assert decode(type(record), encode(record)) == record


@given(st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()), st.sampled_from(KINDS))
def test_any_bytes_are_a_record_or_none(value: bytes, kind: type[NodeRecord]) -> None:
    found = decode(kind, value)
    assert found is None or isinstance(found, kind)


@given(RECORDS, st.sampled_from(NAMES), JSON)
def test_a_changed_field_is_a_record_or_none(
    record: NodeRecord | ObjectRecord | ReplicaRecord, name: str, value: object
) -> None:
    data = json.loads(encode(record))
    data[name] = value
    found = decode(type(record), json.dumps(data).encode())
    assert found is None or decode(type(found), encode(found)) == found


def test_unknown_keys_pass_and_defaults_fill_in() -> None:
    value = {"node": "n", "control": "c", "segment": "s", "data_port": 1, "since_version_2": [1]}
    assert decode(NodeRecord, json.dumps(value).encode()) == NodeRecord("n", "c", "s", 1)


def test_a_whole_number_is_a_time_too() -> None:
    found = decode(NodeRecord, b'{"node":"n","control":"c","segment":"s","data_port":1,"started":5}')
    assert found is not None
    assert type(found.started) is float


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"node":"n"}',
        b'{"node":1,"control":"c","segment":"s","data_port":1}',
        b'{"node":"n","control":"c","segment":"s","data_port":"1"}',
        b'{"node":"n","control":"c","segment":"s","data_port":true}',
        b'{"node":"n","control":"c","segment":"s","data_port":-1}',
        b'{"node":"n","control":"c","segment":"s","data_port":1,"started":NaN}',
        b'{"node":"n","control":"c","segment":"s","data_port":1,"started":1e999}',
        b'{"node":"n","control":"c","segment":"s","data_port":1,"started":1' + b"0" * 400 + b"}",
        b'{"node":"n","control":"c","segment":"s","data_port":1' + b"0" * 5000 + b"}",
        b'{"node":"n","control":"c","segment":"s","data_port":1,"pad":"' + b"x" * MAX_RECORD_BYTES + b'"}',
    ],
)
def test_what_is_no_node(value: bytes) -> None:
    assert decode(NodeRecord, value) is None


def test_peer_address() -> None:
    record = NodeRecord("n", "c", "[::1]:77", 78, host_id="h", local_socket="/s")
    found = peer_address(record)
    assert (found.segment, found.host, found.data_port, found.host_id) == ("[::1]:77", "::1", 78, "h")


@pytest.mark.parametrize(
    ("segment", "port"),
    [
        *[("", 1), ("host", 1), (":7", 1), ("h:x", 1), ("h:", 1), ("h:7", 0), ("h:7", 65536)],
        *[("h:\u00b2", 1), ("h:70000", 1), ("a b:7", 1), ("h:" + "1" * 5000, 1)],
    ],
)
def test_records_without_a_usable_address(segment: str, port: int) -> None:
    with pytest.raises(RemoteProtocolError):
        peer_address(NodeRecord("n", "c", segment, port))


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (("h", "z"), ("h", "z"), SAME_HOST),
        (("h", "z"), ("i", "z"), SAME_ZONE),
        (("h", "z"), ("i", "y"), ABROAD),
        (("h", "z"), ("i", ""), ELSEWHERE),
        (("", ""), ("", ""), ELSEWHERE),
        (("", "z"), ("", "z"), SAME_ZONE),
    ],
)
def test_distance(mine: tuple[str, str], theirs: tuple[str, str], expected: int) -> None:
    one, other = (NodeRecord("n", "", "", 1, host_id=h, zone=z) for h, z in (mine, theirs))
    assert distance(one, other) == expected
