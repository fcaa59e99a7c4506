from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.inspect.staleness import Deployment, ProbeAnswer, ProbeTarget, RecordState, Verdict
from p2pstore.metadata.store import Absent, AbsentPrefix, KeyValue, Unchanged

DIGEST = "ab" * 32


def item(key: str, value: Any, revision: int = 1, lease: int = 0) -> KeyValue:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return KeyValue(key, data, 1, revision, 1, lease)


def rpc(name: str, port: int, cluster: str = "", host: str = "10.0.0.1", revision: int = 1) -> KeyValue:
    return item(f"mooncake/{cluster}rpc_meta/{name}", {"ip_or_host_name": host, "rpc_port": port}, revision)


def segment(name: str, cluster: str = "", protocol: str = "tcp", revision: int = 2) -> KeyValue:
    value = {"name": name, "protocol": protocol, "tcp_data_port": 1, "buffers": []}
    key = f"mooncake/{name}" if "/" in name else f"mooncake/{cluster}ram/{name}"
    return item(key, value, revision)


def checkpoint(name: str, gold: list[list[str]], replicas: list[list[str]], revision: int = 3) -> KeyValue:
    shards = [
        {
            "size": 1,
            "gold": [{"segment_name": each, "offset": 1} for each in mine] or None,
            "replica_list": [{"segment_name": each, "offset": 1} for each in others],
        }
        for mine, others in zip(gold, replicas, strict=True)
    ]
    value = {"name": name, "size": len(shards), "size_list": [len(shards)], "max_shard_size": 1, "shards": shards}
    return item(f"mooncake/checkpoint/{name}", value, revision)


def obj(name: str, manifest: str = DIGEST) -> KeyValue:
    record = {"name": name, "manifest": manifest, "size": 1, "chunk_size": 1, "chunks": 1, "files": 1, "kind": "file",
              "hash": "xxh3_128", "creator": "a", "created": 1.0}  # fmt: skip
    return item(f"mooncake/p2p/v1/objects/{name}", record, 5)


def at(port: int, host: str = "10.0.0.1") -> ProbeTarget:
    return ProbeTarget(host, port)


def judge(
    found: list[KeyValue], answers: Mapping[ProbeTarget, ProbeAnswer], key: str = "", held: Mapping[str, bool] | None = None,
    *, complete: bool = True,
) -> Verdict:  # fmt: skip
    deployment = Deployment(found, complete=complete)
    key = key or found[0].key
    assert deployment.endpoints([key]) <= set(answers), "asked nobody else"
    verdict = deployment.judge(key, answers, held or {})
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (ProbeAnswer.ALIVE, RecordState.ALIVE),
        (ProbeAnswer.REFUSED, RecordState.STALE),
        (ProbeAnswer.SILENT, RecordState.UNREACHABLE),
        (ProbeAnswer.STRANGE, RecordState.UNKNOWN),
        (ProbeAnswer.NOT_ASKED, RecordState.UNKNOWN),
    ],
)
def test_a_process_is_what_its_endpoint_answers_and_so_is_its_segment(answer: ProbeAnswer, state: RecordState) -> None:
    found = [rpc("a", 1), segment("a")]
    verdict = judge(found, {at(1): answer})
    assert (verdict.state, verdict.evidence) == (state, (Unchanged("mooncake/rpc_meta/a", 1),))
    assert "10.0.0.1:1" in verdict.why
    verdict = judge(found, {at(1): answer}, "mooncake/ram/a")
    assert verdict.state is state
    assert verdict.evidence == (Unchanged("mooncake/ram/a", 2), Unchanged("mooncake/rpc_meta/a", 1))


def test_a_segment_belongs_to_the_process_of_its_own_cluster() -> None:
    found = [segment("a", "prod/"), rpc("a", 1), rpc("a", 2, "prod/")]
    assert judge(found, {at(2): ProbeAnswer.ALIVE}).state is RecordState.ALIVE
    assert Deployment(found, complete=True).endpoints([found[0].key]) == {at(2)}


def test_a_segment_that_nobody_can_open_is_stale_where_all_is_known() -> None:
    verdict = judge([segment("a")], {})
    assert (verdict.state, verdict.evidence) == (
        RecordState.STALE, (Unchanged("mooncake/ram/a", 2), Absent("mooncake/rpc_meta/a")),
    )  # fmt: skip
    assert judge([segment("a")], {}, complete=False).state is RecordState.UNKNOWN
    assert judge([segment("a", protocol="nvmeof")], {}).state is RecordState.UNKNOWN


def test_a_slash_in_a_segments_name_hides_its_cluster() -> None:
    found = [segment("rack/a"), rpc("rack/a", 1, "prod/")]
    assert judge(found, {at(1): ProbeAnswer.REFUSED}).state is RecordState.STALE
    assert Deployment(found, complete=True).together(found[1].key) == [found[0].key]


def test_a_checkpoint_lives_as_long_as_one_location_does() -> None:
    found = [checkpoint("m", [["a"], ["a"]], [["b"], []]), rpc("a", 1), rpc("b", 2)]
    answers = {at(1): ProbeAnswer.REFUSED, at(2): ProbeAnswer.ALIVE}
    assert judge(found, answers).state is RecordState.ALIVE
    assert judge(found, {**answers, at(2): ProbeAnswer.SILENT}).state is RecordState.UNREACHABLE
    assert judge(found, {**answers, at(2): ProbeAnswer.STRANGE}).state is RecordState.UNKNOWN
    verdict = judge(found, {**answers, at(2): ProbeAnswer.REFUSED})
    assert verdict.state is RecordState.STALE
    assert verdict.evidence == (
        Unchanged("mooncake/checkpoint/m", 3), Unchanged("mooncake/rpc_meta/a", 1), Unchanged("mooncake/rpc_meta/b", 1),
    )  # fmt: skip


def test_a_location_without_a_record_is_asked_where_its_name_is_an_address() -> None:
    found = [checkpoint("m", [["10.0.0.7:99"]], [[]])]
    assert judge(found, {at(99, "10.0.0.7"): ProbeAnswer.ALIVE}).state is RecordState.ALIVE
    verdict = judge(found, {at(99, "10.0.0.7"): ProbeAnswer.REFUSED})
    assert (verdict.state, verdict.evidence[1:]) == (RecordState.STALE, (Absent("mooncake/rpc_meta/10.0.0.7:99"),))
    assert judge([checkpoint("m", [["gone"]], [[]])], {}).state is RecordState.STALE
    assert judge([checkpoint("m", [["gone"]], [[]])], {}, complete=False).state is RecordState.UNKNOWN
    assert judge([checkpoint("m", [[]], [[]])], {}).state is RecordState.STALE


def test_a_name_that_looks_like_another_when_it_is_shown_is_not_taken_for_it() -> None:
    # U+0007 is shown as \x07, and a long name is shown cut.
    long = "x" * 2000
    found = [checkpoint("m", [["a\x07"], [long]], [[], []]), rpc("a\x07", 1), rpc(long, 2)]
    assert judge(found, {at(1): ProbeAnswer.ALIVE, at(2): ProbeAnswer.REFUSED}).state is RecordState.ALIVE
    assert judge(found, {at(1): ProbeAnswer.REFUSED, at(2): ProbeAnswer.ALIVE}).state is RecordState.ALIVE


def test_a_checkpoint_in_more_segments_than_a_transaction_holds_is_left_alone() -> None:
    names = [f"n{i}" for i in range(128)]
    assert judge([checkpoint("m", [names], [[]])], {}).state is RecordState.UNKNOWN
    assert judge([checkpoint("m", [names[:127]], [[]])], {}).state is RecordState.STALE


def test_a_master_is_asked_for_a_connection() -> None:
    found = [item("mooncake-store/c/master_view", b"10.0.0.1:50051")]
    assert judge(found, {ProbeTarget("10.0.0.1", 50051, plain=True): ProbeAnswer.REFUSED}).state is RecordState.STALE


def test_an_earlier_version_is_stale_without_a_replica_and_without_its_name() -> None:
    key = f"mooncake/p2p/v1/versions/m@{DIGEST}"
    version = replace(obj("m"), key=key)
    verdict = judge([version], {}, held={DIGEST: False})
    assert (verdict.state, verdict.evidence) == (
        RecordState.STALE,
        (
            Unchanged(key, 5),
            AbsentPrefix(f"mooncake/p2p/v1/replicas/{DIGEST}/"),
            Absent("mooncake/p2p/v1/objects/m"),
        ),
    )
    assert judge([version, obj("m")], {}, key, held={DIGEST: False}).state is RecordState.ALIVE
    assert judge([version], {}, held={DIGEST: False}, complete=False).state is RecordState.ALIVE
    assert judge([version], {}, held={DIGEST: True}).state is RecordState.ALIVE


def test_an_object_of_ours_is_stale_without_a_replica() -> None:
    verdict = judge([obj("m")], {}, held={DIGEST: False})
    assert (verdict.state, verdict.evidence) == (
        RecordState.STALE,
        (Unchanged("mooncake/p2p/v1/objects/m", 5), AbsentPrefix(f"mooncake/p2p/v1/replicas/{DIGEST}/")),
    )
    assert judge([obj("m")], {}, held={DIGEST: True}).state is RecordState.ALIVE
    assert judge([obj("m")], {}).state is RecordState.ALIVE


@pytest.mark.parametrize(
    "found",
    [
        item("mooncake/rpc_meta/a", b"{"),
        item("mooncake/rpc_meta/a", {"ip_or_host_name": "-o evil\n", "rpc_port": 1}),
        item("mooncake/rpc_meta/a", {"ip_or_host_name": "h", "rpc_port": 70000}),
        item("mooncake/ram/a", {"protocol": "tcp", "buffers": [{"name": ""}]}),
        item("mooncake/checkpoint/a", {"size": 1}),
        item("mooncake/tent/a", {"x": 1}),
        item("/oplog/c/1", b"x"),
        item("mooncake-store/c/master_view", b"nonsense"),
        item("mooncake/what/ever", b"x"),
        item("mooncake/p2p/v1/objects/a", {"manifest": 1}),
        obj("a", manifest=""),
        item("mooncake/p2p/v1/nodes/a", {"control": "h:1"}),
    ],
)
def test_what_is_malformed_or_strange_is_not_judged(found: KeyValue) -> None:
    deployment = Deployment([found], complete=True)
    assert deployment.endpoints([found.key]) == set()
    assert deployment.judge(found.key, {}, {DIGEST: False, "": False}) is None


KEYS = st.sampled_from(
    ["mooncake/rpc_meta/a", "mooncake/ram/a", "mooncake/checkpoint/a", "mooncake/x/y", "mooncake/p2p/v1/objects/a",
     "mooncake-store/c/master_view"]
)  # fmt: skip
VALUES = st.binary(max_size=40) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["protocol", "buffers", "shards", "gold", "segment_name", "ip_or_host_name", "rpc_port"]),
            inner,
        )
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@given(st.dictionaries(KEYS, VALUES))
def test_any_values_are_judged_or_not_and_nothing_raises(found: dict[str, bytes]) -> None:
    deployment = Deployment([item(key, value) for key, value in found.items()], complete=True)
    deployment.endpoints(found)
    for key in found:
        deployment.judge(key, {}, {})
