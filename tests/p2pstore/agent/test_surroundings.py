"""What an agent has from where it was started, beside what a command of today has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pstore.agent import surroundings as module
from p2pstore.agent.surroundings import differences, surroundings

OURS: dict[str, Any] = {
    "version": "2",
    "user": 7,
    "groups": [7, 8],
    "umask": "0022",
    "network": 1,
    "open_files": 4096,
    "locked_memory": None,
}


def test_this_process_differs_in_nothing_from_itself() -> None:
    mine = surroundings()
    assert json.loads(json.dumps(mine)) == mine
    assert differences(mine, mine) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "1"}, "the agent is of version 1, and this command of 2"),
        ({"user": 0}, "the agent reads and writes files as user 0, and this command as 7"),
        ({"groups": [7]}, "the agent was started without the groups 8 of this command"),
        ({"umask": "0077"}, "directories that a get makes have the agent's umask 0077, not 0022"),
        ({"network": 2}, "the agent is in another network namespace: it may not reach what this command reaches"),
        ({"open_files": 256}, "the agent may have 256 open files, and this command 4096"),
        ({"locked_memory": 65536}, "the agent may have 65536 locked bytes, and this command any number"),
    ],
)
def test_what_differs_is_said(changed: dict[str, Any], said: str) -> None:
    assert differences({**OURS, **changed}, OURS) == [said]


@pytest.mark.parametrize("changed", [{"groups": [7, 8, 9]}, {"open_files": None}, {"open_files": 1 << 20}])
def test_what_is_no_disadvantage_is_not_said(changed: dict[str, Any]) -> None:
    assert differences({**OURS, **changed}, OURS) == []


@pytest.mark.parametrize("told", [None, [], {}, {"groups": "x", "open_files": "many"}])
def test_an_agent_that_tells_nothing(told: object) -> None:
    assert differences(told, OURS) == []


def test_where_proc_does_not_tell_there_is_no_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STATUS", tmp_path / "status")
    assert surroundings()["umask"] == ""
    (tmp_path / "status").write_text("Name:\tx\nUmask:\t0027\n")
    assert surroundings()["umask"] == "0027"
