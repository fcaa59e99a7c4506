from __future__ import annotations

import json

from p2pstore.errors import ObjectNotFound
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, FakeAgent, info_answer


def test_people_see_files_and_holders(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer()
    done = mooncake("info", "models/llama")
    assert (done.returncode, done.stderr) == (0, "")
    text = [line.split() for line in done.stdout.splitlines()]
    assert ["name", "models/llama"] in text
    assert ["size", "10.0", "MiB", "(10,485,765", "bytes)"] in text
    assert ["model.safetensors", "10.0", "MiB", "10"] in text
    assert ["alpha", "gold", "11", "11", "100", "%", "127.0.0.1:7301", "yes"] in text
    assert ["beta", "replica", "4", "11", "36", "%", "127.0.0.1:8301", "no"] in text


def test_where_this_nodes_copies_lie(agent: FakeAgent, mooncake: Mooncake) -> None:
    here = [{"role": "gold", "path": "/a"}, {"role": "replica", "path": "/b"}]
    agent.answers["GET /v1/info"] = info_answer(here=here)
    shown = mooncake("info", "models/llama").stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown if line.startswith("here")] == ["/a (gold)", "/b (replica)"]


def test_json_is_what_the_agent_says(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer()
    assert json.loads(mooncake("info", "models/llama", "--json").stdout) == info_answer()


def test_quiet_prints_the_manifest(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer()
    assert mooncake("info", "models/llama", "-q").stdout == f"{DIGEST}\n"


def test_many_files_are_cut_short_unless_verbose(agent: FakeAgent, mooncake: Mooncake) -> None:
    files = [{"path": f"f{i:03}", "size": 1, "mode": 0o644, "chunks": 1} for i in range(100)]
    agent.answers["GET /v1/info"] = info_answer(files=files)
    short = mooncake("info", "models/llama").stdout
    assert "f019" in short
    assert "f020" not in short
    assert "... and 80 more files (--verbose lists all)" in short
    assert "f099" in mooncake("info", "models/llama", "-v").stdout


def test_peers_that_sent_wrong_bytes_are_named(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer(banned=[{"node": "gamma", "chunk": 7}])
    assert "gamma sent wrong bytes for chunk 7 to this node, and is banned" in mooncake("info", "models/llama").stdout


def test_an_object_that_nobody_holds(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer(replicas=[], files=[])
    assert "nobody holds it now" in mooncake("info", "models/llama").stdout


def test_another_metadata_server_than_the_agents_is_refused(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer()
    agent.answers["GET /v1/status"] = {"metadata": "etcd://10.0.0.1:2379"}
    assert mooncake("info", "models/llama", "--metadata", "etcd://10.0.0.1").returncode == 0
    done = mooncake("info", "models/llama", "--metadata", "etcd://10.0.0.2:2379")
    assert done.returncode == 7
    assert "uses the metadata server etcd://10.0.0.1:2379, not etcd://10.0.0.2:2379" in done.stderr
    assert "mooncake node stop" in done.stderr


def test_an_unknown_name_ends_with_3(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = ObjectNotFound(name="x")
    done = mooncake("info", "x")
    assert done.returncode == 3
    assert done.stderr == "error: no object is named 'x'\nhint: run 'mooncake list' to see what there is\n"


def test_several(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer()
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "a/1"}, {"name": "a/2"}], "next": None}
    done = mooncake("info", "a/", "b", "--json")
    assert json.loads(done.stdout) == {"objects": [info_answer()] * 3, "failed": []}
    assert mooncake("info", "a/?", "-q").stdout == f"{DIGEST}\n" * 2
    assert mooncake("info", "a/", "b").stdout.count("\nname ") == 2
    agent.answers["GET /v1/info"] = ObjectNotFound(name="b")
    assert mooncake("info", "b", "c").returncode == 3
    assert mooncake("info", "x*").stderr.startswith("error: no object is named 'x*'\n")


def test_what_is_superseded(agent: FakeAgent, mooncake: Mooncake) -> None:
    older = {"manifest": "9" * 64, "created": 1.0, "tags": ["v1"], "holders": [{"node": "beta", "state": "complete"}]}
    agent.answers["GET /v1/info"] = info_answer(older=[older], superseded=False, current=DIGEST)
    assert f"\nsuperseded: sha256:{'9' * 12} (v1), still held by 1 node\n" in mooncake("info", "models/llama").stdout
    agent.answers["GET /v1/info"] = info_answer(older=[older], superseded=True, current="8" * 64)
    assert f"\nsuperseded: models/llama is sha256:{'8' * 12} now\n" in mooncake("info", "models/llama@3f").stdout
