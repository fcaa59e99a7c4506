"""A checkpoint goes from node to node while nodes die. ``MOONCAKE_STORY_MIB=2048`` tells it with 2 GiB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster, eventually, leftovers, make_file, same

MIB = 1 << 20
SHARDS = 4
SHARD = int(os.environ.get("MOONCAKE_STORY_MIB", "64")) * MIB // SHARDS


def checkpoint(root: Path) -> Path:
    """A sharded checkpoint as Hugging Face lays one out."""
    root.mkdir()
    (root / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}\n')
    (root / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {}}\n')
    for number in range(SHARDS):
        make_file(root / f"model-{number + 1:05}-of-{SHARDS:05}.safetensors", SHARD, seed=number)
    return root


def shown(witness: Agent) -> dict[str, tuple[str, str, bool]]:
    """What ``info`` says of the holders: role, state, whether it answers."""
    return {n: (h["role"], h["state"], h["reachable"]) for n, h in witness.holders("model").items()}


@pytest.mark.timeout(600)
def test_a_checkpoint_outlives_the_node_that_it_came_from(cluster: Cluster) -> None:
    first, second, third, fourth = cluster.agents("first", "second", "third", "fourth")
    path = checkpoint(cluster.path("model"))
    gold, replica = ("gold", "complete", True), ("replica", "complete", True)
    registered = first.ok("register", path, "--name", "model")
    assert shown(fourth) == {"first": gold}
    info = fourth.ok("info", "model")
    assert (info["size"], info["chunks"], len(info["files"])) == (registered["size"], registered["chunks"], SHARDS + 2)

    got = second.ok("get", "model", cluster.path("second"), "--transport", "tcp")
    assert same(path, cluster.path("second"))
    assert (got["peers"], got["transport"]) == ({"first": registered["size"]}, "tcp")
    assert shown(fourth) == {"first": gold, "second": replica}

    got = third.ok("get", "model", cluster.path("third"), "--transport", "tcp")
    assert same(path, cluster.path("third"))
    assert set(got["peers"]) <= {"first", "second"}
    assert sum(got["peers"].values()) == registered["size"]
    assert shown(fourth) == {"first": gold, "second": replica, "third": replica}

    first.kill()
    now = shown(fourth)
    assert now["second"] == now["third"] == replica
    assert now.get("first", ("gold", "complete", False)) == ("gold", "complete", False), "listed perhaps, not reachable"
    got = fourth.ok("get", "model", cluster.path("fourth"), "--transport", "tcp")
    assert same(path, cluster.path("fourth"))
    assert set(got["peers"]) <= {"second", "third"}
    expected = {"second": replica, "third": replica, "fourth": replica}
    eventually(lambda: shown(fourth) == expected, "the dead node is gone")
    assert all(leftovers(cluster.path(name)) == [] for name in ("second", "third", "fourth"))

    first.start()
    assert shown(fourth) == {"first": gold, **expected}, "and it is back with what it had"
    listed = next(o for o in second.ok("list")["objects"] if o["name"] == "model")
    assert (listed["complete"], listed["partial"], listed["creator"]) == (4, 0, "first")


def test_gets_that_start_together(cluster: Cluster) -> None:
    """Four nodes at once: each ends with a whole copy of its own."""
    source = cluster.agent("source")
    path = make_file(cluster.path("data"), 32 * MIB)
    source.ok("register", path, "--name", "data")
    getters = cluster.agents(*(f"getter-{n}" for n in range(4)))
    running = [g.begin("get", "data", cluster.path(g.name), "--transport", "tcp", "--json") for g in getters]
    for getter, command in zip(getters, running, strict=True):
        done = command.wait()
        assert done.status == 0, f"{done}\n{getter.log()}"
        assert same(path, cluster.path(getter.name))
        assert sum(done.json["peers"].values()) == 32 * MIB
    assert len(source.holders("data")) == 5
