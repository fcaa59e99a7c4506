from __future__ import annotations

import json

from p2pstore.errors import ObjectNotFound
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, MIB, FakeAgent

NEWEST = {
    "manifest": DIGEST,
    "size": 5 * MIB,
    "creator": "alpha",
    "created": 1.0,
    "tags": ["b", "c"],
    "current": True,
    "superseded": False,
    "holders": [{"node": "alpha", "state": "complete"}, {"node": "beta", "state": "partial"}],
}
HELD = {**NEWEST, "manifest": "8" * 64, "tags": ["a"], "current": False, "superseded": True}
LOST = {**HELD, "manifest": "9" * 64, "tags": [], "superseded": False, "holders": []}
ANSWER = {"name": "m", "versions": [NEWEST, HELD, LOST]}


def test_people_see_what_is_superseded_and_what_nobody_has(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/history"] = ANSWER
    done = mooncake("history", "m")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    header = lines[0]
    assert header.split() == ["DIGEST", "CREATED", "BY", "SIZE", "TAGS", "STATE", "HELD", "BY"]
    cells = [[line[: header.index("CREATED")].strip(), line[header.index("TAGS") :].split()] for line in lines[1:]]
    assert cells == [
        [DIGEST[:12], ["b,", "c", "newest", "alpha,", "~beta"]],
        ["8" * 12, ["a", "superseded", "alpha,", "~beta"]],
        ["9" * 12, ["nobody", "now"]],
    ]


def test_many_holders_are_counted(agent: FakeAgent, mooncake: Mooncake) -> None:
    holders = [{"node": f"n{number}", "state": "complete"} for number in range(7)]
    agent.answers["GET /v1/history"] = {"name": "m", "versions": [{**NEWEST, "holders": holders}]}
    assert mooncake("history", "m").stdout.rstrip().endswith("n0, n1, n2, n3 and 3 more")
    assert mooncake("history", "m", "-v").stdout.rstrip().endswith("n5, n6")


def test_json_and_quiet(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/history"] = ANSWER
    assert json.loads(mooncake("history", "m", "--json").stdout) == ANSWER
    assert mooncake("history", "m", "-q").stdout.splitlines()[0] == f"m@sha256:{DIGEST}"


def test_what_is_not_there(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/history"] = ObjectNotFound(name="m")
    assert mooncake("history", "m").returncode == 3
    assert mooncake("history", "a b").returncode == 2
