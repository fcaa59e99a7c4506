from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import OBJECT, FakeAgent


@pytest.fixture
def agent(agent: FakeAgent) -> FakeAgent:
    small = {**OBJECT, "name": "tiny", "size": 5, "files": 1, "complete": 1, "partial": 0}
    agent.answers["GET /v1/objects"] = {"objects": [OBJECT, small], "next": None}
    return agent


def test_people_get_an_aligned_table(agent: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("list")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "FILES", "COMPLETE", "PARTIAL", "CREATED", "BY", "HERE"]
    assert lines[1].split()[:6] == ["models/llama", "10.0", "MiB", "2", "2", "1"]
    assert lines[2].split()[:6] == ["tiny", "5", "B", "1", "1", "0"]
    assert lines[1].index("MiB") + 3 == lines[2].index(" B ") + 2
    assert not any(line.endswith(" ") for line in lines)


def test_where_this_nodes_copy_lies(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{**OBJECT, "here": ["/data/a", "/b\n"]}], "next": None}
    assert mooncake("list").stdout.splitlines()[1].endswith("/data/a, /b\\n")


def test_json_is_what_the_agent_says(agent: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("list", "--json")
    assert json.loads(done.stdout)["objects"][0] == OBJECT
    assert done.stderr == ""


def test_quiet_prints_names(agent: FakeAgent, mooncake: Mooncake) -> None:
    assert mooncake("list", "-q").stdout == "models/llama\ntiny\n"


def test_the_prefix_goes_to_the_agent(agent: FakeAgent, mooncake: Mooncake) -> None:
    mooncake("list", "models/")
    assert "prefix=models%2F&" in agent.body_of("GET /v1/objects")


@pytest.mark.parametrize(("arguments", "words"), [([], "no objects yet"), (["x"], "no object's name begins with 'x'")])
def test_nothing_is_said_to_be_nothing(agent: FakeAgent, mooncake: Mooncake, arguments: list[str], words: str) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [], "next": None}
    done = mooncake("list", *arguments)
    assert (done.returncode, done.stdout) == (0, "")
    assert words in done.stderr
    assert mooncake("list", "--json").stdout == '{"objects": []}\n'


def test_names_with_escapes_are_made_harmless(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {
        "objects": [{**OBJECT, "name": "a\x1b]0;x\x07", "creator": "b\nc"}],
        "next": None,
    }
    done = mooncake("list", FORCE_COLOR="0")
    assert "a\\x1b]0;x\\x07" in done.stdout
    assert "b\\nc" in done.stdout
    assert "\x1b" not in done.stdout


def test_markup_in_names_is_shown_as_it_is(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {"objects": [{**OBJECT, "creator": "[red]x[/red]:smile:"}], "next": None}
    assert "[red]x[/red]:smile:" in mooncake("list").stdout


def test_without_an_agent_it_ends_with_3(mooncake: Mooncake) -> None:
    done = mooncake("list")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[1] == "hint: run 'mooncake node start'"


def test_versions_of_before_that_are_still_held_are_counted(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/objects"] = {
        "objects": [{**OBJECT, "superseded": 2}, {**OBJECT, "name": "x", "superseded": 0}],
        "next": None,
    }
    header, first, second = mooncake("list").stdout.splitlines()
    assert header.split() == ["NAME", "SIZE", "FILES", "COMPLETE", "PARTIAL", "OLDER", "CREATED", "BY", "HERE"]
    at = header.index("OLDER")
    assert first[at : at + 5].strip() == "2"
    assert second[at : at + 5].strip() == ""
