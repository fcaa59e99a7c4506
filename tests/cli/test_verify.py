from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import NotHeld
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, FakeAgent, progress

GOOD = {
    "event": "result",
    "name": "m",
    "path": "/data/m",
    "manifest": DIGEST,
    "size": 4 << 20,
    "chunks": 4,
    "bad": [],
    "seconds": 0.5,
    "ok": True,
}
BAD = {
    **GOOD,
    "ok": False,
    "bad": [
        {"file": "w\x1b.bin", "chunk": 3, "offset": 3 << 20, "length": 1 << 20, "reason": "hash differs"},
        {"file": "w\x1b.bin", "chunk": 4, "offset": 4 << 20, "length": 1 << 20, "reason": "hash differs"},
    ],
}


def test_good_bytes_end_with_0(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/verify"] = [progress(1, 2), GOOD]
    done = mooncake("verify", "m")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "/data/m is m, every byte: 4.0 MiB, 4 chunks, in 0.50 s\n"


def test_bad_bytes_are_listed_and_end_with_4(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/verify"] = [BAD]
    done = mooncake("verify", "m")
    assert done.returncode == 4
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["FILE", "CHUNK", "OFFSET", "LENGTH", "REASON"]
    assert rows[1] == ["w\\x1b.bin", "3", "3145728", "1048576", "hash", "differs"]
    assert done.stderr.startswith("error: /data/m differs from what was registered: 2 bad chunks of 4\nhint: ")


def test_a_file_that_is_too_long_has_no_bad_chunk(agent: FakeAgent, mooncake: Mooncake) -> None:
    long = {"file": "c", "chunk": None, "offset": 3, "length": 1, "reason": "it is 1 byte longer"}
    agent.answers["POST /v1/verify"] = [{**BAD, "bad": [long]}]
    done = mooncake("verify", "m")
    assert done.returncode == 4
    assert done.stdout.splitlines()[1].split() == ["c", "-", "3", "1", "it", "is", "1", "byte", "longer"]
    assert done.stderr.startswith("error: /data/m differs from what was registered: it is 1 byte longer\n")


def test_json(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/verify"] = [BAD]
    done = mooncake("verify", "m", "--json")
    assert done.returncode == 4
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert document["bad"] == BAD["bad"]
    assert json.loads(done.stderr)["error"]["type"] == "IntegrityError"


def test_quiet_prints_bad_files_only(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/verify"] = [BAD]
    assert mooncake("verify", "m", "-q").stdout == "w\\x1b.bin\n"
    agent.answers["POST /v1/verify"] = [GOOD]
    done = mooncake("verify", "m", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_empty_target_never_reaches_the_agent(agent: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("verify", "")
    assert (done.returncode, len(agent.requests)) == (2, 0)
    assert "is empty" in done.stderr


@pytest.mark.parametrize(("text", "sent"), [("a/b", "a/b"), ("./m", "{cwd}/m"), ("/x/../m", "/m"), (".", "{cwd}")])
def test_names_and_paths(agent: FakeAgent, mooncake: Mooncake, tmp_path: Path, text: str, sent: str) -> None:
    agent.answers["POST /v1/verify"] = [GOOD]
    mooncake("verify", text)
    assert agent.body_of("POST /v1/verify") == {"target": sent.format(cwd=tmp_path / "cwd")}


def test_several(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/verify"] = [GOOD]
    agent.answers["GET /v1/objects"] = {"objects": [{"name": "a/1"}, {"name": "a/2"}], "next": None}
    done = mooncake("verify", "a/", "/data/x", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [one["ok"] for one in document["objects"]] == [True] * 3
    assert document["failed"] == []
    asked = [body["target"] for _, path, body in agent.requests if path == "/v1/verify"]
    assert asked == ["a/1", "a/2", "/data/x"]
    assert mooncake("verify", "a/*").stderr.count("/data/m is m, every byte") == 2


def test_a_bad_one_among_several(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/verify"] = [BAD]
    done = mooncake("verify", "a", "b")
    assert done.returncode == 4
    assert done.stdout.count("hash differs") == 4
    assert done.stderr.count("differs from what was registered") == 2
    done = mooncake("verify", "a", "b", "--json")
    failed = json.loads(done.stdout)["failed"]
    assert (done.returncode, [one["name"] for one in failed]) == (4, ["a", "b"])
    assert {one["error"]["type"] for one in failed} == {"IntegrityError"}


def test_bytes_that_differ_give_the_status_whatever_else_fails(agent: FakeAgent, mooncake: Mooncake) -> None:
    answers: list[Any] = [[BAD], NotHeld(name="b")]
    agent.answers["POST /v1/verify"] = lambda _: answers.pop(0)
    done = mooncake("verify", "a", "b")
    assert done.returncode == 4
    assert str(NotHeld(name="b")) in done.stderr
