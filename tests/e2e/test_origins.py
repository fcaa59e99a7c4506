"""``mooncake register hf://..``, on a stand-in of the hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, tree
from tests.p2pstore.hub.stand_in import StandIn
from tests.p2pstore.samples import MIB, content

NAME = "org/model"
FILES = {"config.json": b"{}", "m.safetensors": content(5 * MIB + 1), "m.bin": content(MIB, 2)}


@pytest.fixture
def hub() -> Iterator[StandIn]:
    made = StandIn()
    made.repos[NAME] = dict(FILES)
    yield made
    made.close()


def test_a_repository_becomes_an_object_and_its_commit_a_tag(cluster: Cluster, hub: StandIn) -> None:
    one, other = cluster.agents("one", "other", MOONCAKE_HF_UPSTREAM=hub.url)
    made = one.ok("register", f"hf://{NAME}", "--exclude", "*.bin")
    commit = hub.commit(NAME)
    wanted = {path: data for path, data in FILES.items() if not path.endswith(".bin")}
    assert (made["name"], made["files"], made["commit"]) == (NAME, len(wanted), commit)
    other.ok("get", f"{NAME}:{commit}", cluster.path("got"))
    assert tree(cluster.path("got")) == wanted
    again = other.ok("register", f"hf://{NAME}", "--exclude", "*.bin")
    assert again["manifest"] == made["manifest"]
    assert hub.sent == {path: len(data) for path, data in wanted.items()}
    one.stop()
    one.start()
    assert one.ok("verify", NAME)["ok"]


def test_slips_and_refusals(cluster: Cluster, hub: StandIn) -> None:
    agent = cluster.agent("one", MOONCAKE_HF_UPSTREAM=hub.url)
    assert "origin" in agent.fails(2, "register", "s3://bucket/key")["message"]
    assert "repository" in agent.fails(2, "register", "hf://a/b/c")["message"]
    assert agent.fails(2, "register", f"hf://{NAME}", "hf://org/other")
    assert "no such repository" in agent.fails(7, "register", "hf://org/none")["message"]
    assert "revision" in agent.fails(7, "register", f"hf://{NAME}@v9")["message"]
    alone = cluster.agent("alone")
    assert "hf_upstream" in alone.fails(2, "register", "hf://org/none")["message"]
    hub.wrong.add("m.bin")
    assert "m.bin" in agent.fails(4, "register", f"hf://{NAME}")["message"]
    assert NAME not in agent.names()
    hub.down = True
    assert "503" in agent.fails(5, "register", "hf://org/absent")["message"]
