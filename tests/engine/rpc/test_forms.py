"""What older generations cannot say becomes a default, and what they cannot read is left out."""

from __future__ import annotations

import json

import pytest

from engine.rpc import messages as m
from engine.rpc.compiled import Codec
from engine.rpc.forms import CONFIG, META, OFFLOAD_KEY, SEGMENT
from engine.rpc.methods import METHODS

IDENTITY = bytes(range(16))


def through(kind: object, value: object) -> object:
    codec = Codec(kind)  # type: ignore[arg-type]
    return codec.read(codec.write(value))


@pytest.mark.parametrize("generation", ["0.3.9", "0.3.11", "0.3.12"])
def test_a_soft_pin_is_a_flag_until_it_is_an_action(generation: str) -> None:
    plain = m.ReplicateConfig(preferred_segments=[], preferred_nof_segments=() if generation == "0.3.9" else [])
    pinned = plain._replace(replica_num=2, soft_pin_action=m.SoftPin.ENABLE, preferred_segments=["a"])
    assert through(CONFIG[generation], pinned) == pinned
    assert through(CONFIG[generation], plain) == plain
    unpinned = pinned._replace(soft_pin_action=m.SoftPin.DISABLE)
    assert through(CONFIG[generation], unpinned) == pinned._replace(soft_pin_action=m.SoftPin.PRESERVE)


def test_a_config_of_the_newest_comes_whole() -> None:
    config = m.ReplicateConfig(1, 2, 3, 2, 60_000, True, ["a"], "b", ["c"], True, 7, "host", ["g", ""])
    assert through(CONFIG["0.3.13"], config) == config
    assert isinstance(through(CONFIG["0.3.13"], config), m.ReplicateConfig)


def test_older_metas_are_bare_keys() -> None:
    assert META["0.3.9"].literal == bytes.fromhex("800c")
    assert through(META["0.3.9"], m.ObjectMeta("k", 5)) == m.ObjectMeta("k", None)
    assert through(META["0.3.13"], m.ObjectMeta("k", 5)) == m.ObjectMeta("k", 5)


def test_older_segments_have_no_host() -> None:
    segment = m.Segment(IDENTITY, "n", 1, 2, "h:1", "tcp", "host")
    assert through(SEGMENT["0.3.9"], segment) == segment._replace(host_id="")
    assert through(SEGMENT["0.3.12"], segment) == segment


def test_older_offloads_are_bare_keys_of_the_default_tenant() -> None:
    assert through(OFFLOAD_KEY, m.OffloadItem("t", "k", 5)) == m.OffloadItem(m.DEFAULT_TENANT, "k", 0)
    answers = METHODS["OffloadObjectHeartbeat"].answers
    item = m.OffloadItem("t", "k", 5)
    old = answers["0.3.9"]
    assert old.read(old.write([item])) == [item._replace(tenant=m.DEFAULT_TENANT)]
    assert answers["0.3.13"].read(answers["0.3.13"].write([item])) == [item]


@pytest.mark.parametrize(
    ("generation", "names"),
    [
        ("0.3.9", {"key", "targets"}),
        ("0.3.11", {"key", "source", "targets"}),
        ("0.3.12", {"tenant_id", "key", "source", "targets"}),
        ("0.3.13", {"tenant_id", "key", "source", "targets", "dynamic_replication_version_epoch"}),
    ],
)
def test_the_task_that_a_client_fetches_has_the_fields_of_its_generation(generation: str, names: set[str]) -> None:
    payload = {"tenant_id": "t", "key": "k", "source": "", "targets": ["a"], "dynamic_replication_version_epoch": 0}
    task = m.TaskAssignment(IDENTITY, m.TaskType.COPY, json.dumps(payload), 1)
    codec = METHODS["FetchTasks"].answers[generation]
    (found,) = codec.read(codec.write([task]))
    assert set(json.loads(found.payload)) == names
    assert found == task._replace(payload=found.payload)
