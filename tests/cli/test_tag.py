from __future__ import annotations

import json

import pytest

from p2pstore.errors import TagNotFound
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, MIB, FakeAgent, info_answer, register_result

OTHER = "9" * 64
STALE = {
    "name": "m",
    "tag": "old",
    "manifest": OTHER,
    "size": 5 * MIB,
    "complete": 0,
    "partial": 0,
    "moved": 1.0,
    "by": "alpha",
}
GOOD = {**STALE, "tag": "new", "manifest": DIGEST, "complete": 2, "partial": 1}


def test_the_list_marks_what_nobody_holds(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/tags"] = {"tags": [GOOD, STALE]}
    done = mooncake("tag", "m")
    assert done.returncode == 0, done.stderr
    header, good, stale = done.stdout.splitlines()
    assert header.split() == ["TAG", "DIGEST", "SIZE", "COMPLETE", "PARTIAL", "TAGGED", "BY"]
    assert good.split()[:2] == ["new", DIGEST[:12]]
    assert "nobody" not in good
    assert stale.rstrip().endswith("nobody holds it now")
    assert json.loads(mooncake("tag", "m", "--json").stdout) == {"tags": [GOOD, STALE]}
    assert mooncake("tag", "m", "-q").stdout == "m:new\nm:old\n"


def test_no_tags(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/tags"] = {"tags": []}
    done = mooncake("tag", "m")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "m has no tags; 'mooncake tag m NEW' makes one\n"
    assert json.loads(mooncake("tag", "m", "--json").stdout) == {"tags": []}


def test_new_tags(agent: FakeAgent, mooncake: Mooncake) -> None:
    moved = [{"tag": "a", "before": ""}, {"tag": "b", "before": OTHER}, {"tag": "c", "before": DIGEST}]
    answer = {"name": "m", "manifest": DIGEST, "tags": moved}
    agent.answers["POST /v1/tag"] = answer
    done = mooncake("tag", "m:old", "a", "m:b", "c")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"m:a is {DIGEST[:12]}",
        f"m:b is {DIGEST[:12]}, and was {OTHER[:12]}",
        f"m:c is {DIGEST[:12]}, as it was",
    ]
    assert agent.body_of("POST /v1/tag") == {"name": "m:old", "tags": ["a", "b", "c"]}
    assert json.loads(mooncake("tag", "m", "a", "--json").stdout) == answer
    assert mooncake("tag", "m", "a", "-q").stdout == "m:a\nm:b\nm:c\n"


def test_removing(agent: FakeAgent, mooncake: Mooncake) -> None:
    answer = {"name": "m", "tag": "old", "manifest": DIGEST}
    agent.answers["POST /v1/untag"] = answer
    done = mooncake("tag", "m:old", "--remove")
    assert (done.returncode, done.stderr) == (0, f"removed m:old, which was {DIGEST[:12]}\n")
    assert agent.body_of("POST /v1/untag") == {"name": "m:old"}
    agent.answers["POST /v1/untag"] = TagNotFound(name="m", tag="old")
    done = mooncake("tag", "m:old", "--remove")
    assert done.returncode == 3
    assert done.stderr == "error: 'm' has no tag 'old'\nhint: run 'mooncake tag m' to see its tags\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m", "--remove"], "--remove takes one tag, NAME:TAG"),
        (["m:a", "b", "--remove"], "--remove takes one tag"),
        ([f"m:a@{DIGEST}", "--remove"], "--remove takes one tag"),
        (["m", "other:b"], "other:b is a tag of another object than m"),
        (["m", "a b"], "bad tag 'a b'"),
        (["m", "m:"], "bad tag ''"),
        (["m:-a"], "bad tag '-a': it begins with '-'"),
        (["a b"], "bad name 'a b'"),
        (["m@xyz"], "'m@xyz' names no content: its digest is not hexadecimal"),
    ],
)
def test_what_makes_no_sense(agent: FakeAgent, mooncake: Mooncake, arguments: list[str], said: str) -> None:
    done = mooncake("tag", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert agent.requests == []


def test_a_register_with_tags(agent: FakeAgent, mooncake: Mooncake, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "x").write_bytes(b"x")
    moved = [{"tag": "a", "before": ""}, {"tag": "b", "before": OTHER}]
    agent.answers["POST /v1/register-tagged"] = [register_result(tags=moved)]
    done = mooncake("register", tmp_path / "x", "--tag", "a", "--tag", "b")
    assert done.returncode == 0, done.stderr
    assert f"models/llama:a is {DIGEST[:12]}\nmodels/llama:b is {DIGEST[:12]}, and was {OTHER[:12]}\n" in done.stderr
    assert agent.body_of("POST /v1/register-tagged")["tags"] == ["a", "b"]
    done = mooncake("register", tmp_path / "x", "--tag", "a/b")
    assert (done.returncode, "bad tag 'a/b'" in done.stderr) == (2, True)


def test_info_and_unregister_tell_of_tags(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/info"] = info_answer(tags=["a", "b"])
    assert "a, b" in mooncake("info", "models/llama:a").stdout
    withdrawn = [{"role": "gold", "path": "/data/m"}]
    agent.answers["POST /v1/unregister"] = {
        "name": "m", "manifest": DIGEST, "withdrawn": withdrawn, "removed": True, "tags": ["a"]
    }  # fmt: skip
    told = "the tag m:a stays, and nobody holds it now; 'mooncake tag m:a --remove' removes it"
    assert mooncake("unregister", "m:a").stderr.splitlines()[-1] == told
