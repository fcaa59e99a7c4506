from __future__ import annotations

import json
import time
from typing import Any

import pytest

from p2pstore.errors import NotHeld
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, FakeAgent

MIB = 1 << 20


def copy_answer(name: str = "models/a", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "place": f"/data/{name}",
        "manifest": DIGEST,
        "role": "replica",
        "size": 3 * MIB,
        "files": 2,
        "since": time.time() - 7200,
        "used": None,
        "pinned": False,
        "written": True,
        "stays": "",
        **changes,
    }


COPIES = [
    copy_answer(),
    copy_answer("models/b", role="gold", stays="it was registered", used=time.time() - 3600, pinned=True),
    copy_answer("o", role="part", size=5),
]
QUOTA = {"bytes": 4 * MIB, "high": 0.95, "low": 0.8, "taken": 3 * MIB}


@pytest.fixture
def held(agent: FakeAgent) -> FakeAgent:
    agent.answers["GET /v1/cache"] = {"copies": COPIES, "quota": QUOTA}
    return agent


def test_list_for_people(held: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("cache", "list")
    assert (done.returncode, done.stderr) == (0, "")
    heading, first, second, third = done.stdout.splitlines()
    assert heading.split() == ["NAME", "ROLE", "SIZE", "SINCE", "USED", "PINNED", "PLACE"]
    assert first.split()[:6] == ["models/a", "replica", "3.0", "MiB", "2", "h"]
    assert first.split()[-3:] == ["ago", "-", "/data/models/a"]
    assert second.split()[-2:] == ["yes", "/data/models/b"]
    assert third.split()[:4] == ["o", "part", "5", "B"]


def test_list_for_scripts(held: FakeAgent, mooncake: Mooncake) -> None:
    assert json.loads(mooncake("cache", "list", "--json").stdout) == {"copies": COPIES, "quota": QUOTA}
    assert mooncake("cache", "list", "-q").stdout.split() == [copy["place"] for copy in COPIES]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["models/"], ["models/a", "models/b"]),
        (["models/*"], ["models/a", "models/b"]),
        (["o", "models/b"], ["models/b", "o"]),
        (["/data/o"], ["o"]),
    ],
)
def test_some_of_them(held: FakeAgent, mooncake: Mooncake, names: list[str], found: list[str]) -> None:
    shown = json.loads(mooncake("cache", "list", "--json", *names).stdout)["copies"]
    assert [copy["name"] for copy in shown] == found


@pytest.mark.parametrize("name", ["nothing", "nothing/", "x*", "/data"])
def test_what_is_not_here(held: FakeAgent, mooncake: Mooncake, name: str) -> None:
    for command in ("list", "du", "pin", "prune"):
        if command == "pin" and name in {"nothing", "/data"}:
            held.answers["POST /v1/cache-pin"] = NotHeld(name=name)
        done = mooncake("cache", command, name)
        assert (done.returncode, done.stdout) == (3, ""), command
        assert f"this node holds nothing named '{name}'" in done.stderr


def test_nothing_lies_here(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/cache"] = {"copies": [], "quota": None}
    done = mooncake("cache", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing lies here yet" in done.stderr
    assert mooncake("cache", "du").stdout == "total  0 B in 0 copies\n"


def test_du(held: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("cache", "du")
    assert done.stdout.splitlines() == [
        "gold     3.0 MiB in 1 copy",
        "replica  3.0 MiB in 1 copy",
        "part     5 B in 1 copy",
        "total    6.0 MiB in 3 copies",
        "quota    3.0 MiB of 4.0 MiB (75 %); above 95 % it takes what was used least lately",
    ]
    shown = json.loads(mooncake("cache", "du", "--json", "models/").stdout)
    assert shown["total"] == {"copies": 2, "bytes": 6 * MIB}
    assert mooncake("cache", "du", "-q").stdout == f"{6 * MIB + 5}\n"


def test_pin(held: FakeAgent, mooncake: Mooncake) -> None:
    held.answers["POST /v1/cache-pin"] = {"copies": COPIES[:1]}
    done = mooncake("cache", "pin", "models/a")
    assert (done.returncode, done.stderr) == (0, "pinned models/a at /data/models/a\n")
    assert held.body_of("POST /v1/cache-pin") == {"names": ["models/a"], "pinned": True}
    done = mooncake("cache", "unpin", "models/*", "--json")
    assert json.loads(done.stdout) == {"copies": COPIES[:1]}
    assert held.body_of("POST /v1/cache-pin") == {"names": ["/data/models/a", "/data/models/b"], "pinned": False}


def test_without_an_agent(mooncake: Mooncake) -> None:
    for command in (("list",), ("du",), ("pin", "n"), ("prune",)):
        done = mooncake("cache", *command)
        assert (done.returncode, done.stdout) == (3, "")
        assert "no agent runs" in done.stderr
