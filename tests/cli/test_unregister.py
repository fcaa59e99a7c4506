from __future__ import annotations

import json

import pytest

from p2pstore.errors import CopyStays, NotHeld
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, OBJECT, FakeAgent

ANSWER = {
    "name": "m",
    "manifest": DIGEST,
    "withdrawn": [{"role": "gold", "path": "/data/m"}, {"role": "replica", "path": "/copy/m"}],
    "removed": True,
}


@pytest.mark.parametrize(
    ("removed", "last"),
    [
        (True, "nobody else holds it: the name is free"),
        (False, "other nodes still serve it"),
        (None, "the metadata server cannot be told now; the agent tries again until it is"),
    ],
)
def test_people_are_told_what_was_withdrawn(
    agent: FakeAgent, mooncake: Mooncake, removed: bool | None, last: str
) -> None:
    agent.answers["POST /v1/unregister"] = {**ANSWER, "removed": removed}
    done = mooncake("unregister", "m")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "withdrew the gold of m at /data/m",
        "withdrew the replica of m at /copy/m",
        last,
    ]
    assert agent.body_of("POST /v1/unregister") == {"name": "m"}


@pytest.mark.parametrize(
    ("row", "last"),
    [
        ({"complete": 0, "partial": 1}, "no other node has all of it; 1 node has a part"),
        ({"complete": 0, "partial": 2}, "no other node has all of it; 2 nodes have a part"),
        ({"complete": 1, "partial": 2}, "other nodes still serve it"),
        ({"complete": 0, "partial": 2, "manifest": "0" * 64}, "other nodes still serve it"),
        ({"complete": 0, "partial": 2, "name": "m2"}, "other nodes still serve it"),
    ],
)
def test_it_is_told_when_what_is_left_are_parts(
    agent: FakeAgent, mooncake: Mooncake, row: dict[str, object], last: str
) -> None:
    """The file may be deleted next."""
    agent.answers["POST /v1/unregister"] = {**ANSWER, "removed": False}
    agent.answers["GET /v1/objects"] = {"objects": [{**OBJECT, "name": "m", "manifest": DIGEST, **row}], "next": None}
    assert mooncake("unregister", "m").stderr.splitlines()[-1] == last
    agent.answers["POST /v1/unregister"] = {**ANSWER, "removed": True}
    assert mooncake("unregister", "m").stderr.splitlines()[-1] == "nobody else holds it: the name is free"


def test_json_and_quiet(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/unregister"] = ANSWER
    done = mooncake("unregister", "m", "--json")
    assert (json.loads(done.stdout), done.stderr) == (ANSWER, "")
    done = mooncake("unregister", "m", "-q")
    assert (done.stdout, done.stderr) == ("m\n", "")


def test_what_is_not_held_ends_with_3(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/unregister"] = NotHeld(name="m")
    assert mooncake("unregister", "m").returncode == 3


def test_several(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/unregister"] = ANSWER
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "a/1"}, {"name": "a/2"}], "next": None}
    done = mooncake("unregister", "a/", "b", "--json")
    assert done.returncode == 0, done.stderr
    asked = [body["name"] for _, path, body in agent.requests if path == "/v1/unregister"]
    assert asked == ["a/1", "a/2", "b"]
    assert json.loads(done.stdout) == {"objects": [ANSWER] * 3, "failed": []}
    assert mooncake("unregister", "a/*", "-q").stdout == "m\nm\n"


def test_of_a_pattern_what_is_here_is_meant(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/unregister"] = NotHeld(name="a/1")
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "a/1"}, {"name": "a/2"}], "next": None}
    done = mooncake("unregister", "a/*")
    assert done.returncode == 3
    assert "this node holds nothing named 'a/*'" in done.stderr
    done = mooncake("unregister", "a/1", "b")
    assert done.returncode == 3
    assert done.stderr.startswith("a/1: this node holds nothing named 'a/1'\n")


def test_delete(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/unregister-delete"] = {
        **ANSWER,
        "withdrawn": ANSWER["withdrawn"][1:],
        "deleted": [{"path": "/copy/m", "files": 2, "bytes": 1 << 20}],
    }
    done = mooncake("unregister", "m", "--delete")
    assert (done.returncode, done.stdout) == (0, "")
    assert "withdrew the replica of m at /copy/m\ndeleted 2 files, 1.0 MiB, at /copy/m\n" in done.stderr
    assert agent.body_of("POST /v1/unregister-delete") == {"name": "m", "last_copies": False}
    mooncake("unregister", "m", "--delete", "--last-copies")
    assert agent.body_of("POST /v1/unregister-delete") == {"name": "m", "last_copies": True}
    agent.answers["POST /v1/unregister-delete"] = CopyStays(path="/data/m", detail="it was registered")
    done = mooncake("unregister", "m", "--delete")
    assert done.returncode == 7
    assert "the files at /data/m are not deleted: it was registered" in done.stderr
    done = mooncake("unregister", "m", "--last-copies")
    assert done.returncode == 2
    assert "--last-copies is for --delete" in done.stderr
