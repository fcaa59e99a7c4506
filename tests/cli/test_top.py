from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mooncake_cli.commands.top import Moment, record, report
from mooncake_cli.output import Output
from p2pstore.errors import AgentNotRunning
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import FakeAgent, status_answer
from tests.cli.terminal import Terminal

MIB = 1 << 20
GET = {"name": "m", "dest": "/d", "step": "pulling", "unit": "B", "total": 100 * MIB, "percent": 30.0, "peers": 2,
       "seconds": 75.0}  # fmt: skip


class Busy:
    """What an agent says of itself, more at each look."""

    def __init__(self, agent: FakeAgent) -> None:
        self.looks = 0
        self._agent = agent

    def __call__(self, _: str) -> dict[str, Any]:
        self.looks += 1
        return {
            **status_answer(self._agent.home),
            "bytes_pulled": self.looks * 50 * MIB,
            "bytes_sent": self.looks * 10 * MIB,
            "receivers": 3,
            "gets_waiting": 1,
            "peers": [{"node": "beta\n", "bytes": self.looks * 50 * MIB}, {"node": "idle", "bytes": 7}],
            "running_gets": [{**GET, "done": self.looks * 50 * MIB}],
        }


@pytest.fixture
def busy(agent: FakeAgent) -> Busy:
    made = Busy(agent)
    agent.answers["GET /v1/status"] = made
    return made


def looked(**changes: Any) -> dict[str, Any]:
    answer = {"node": "n", "objects": 1, "uptime": 5.0, **changes}
    before = Moment(10.0, 7, 100, 100, 0, {"a": 10, "b": 10}, {("m", "/d"): 20})
    now = Moment(12.0, changes.get("pid", 7), 300, 100, 0, {"a": 50, "b": 10, "c": 2}, {("m", "/d"): 60})
    return record(before, now, answer)


def test_rates_are_what_came_since_a_second() -> None:
    found = looked(
        running_gets=[{**GET, "done": 60}, {**GET, "name": "new", "done": 60}, {**GET, "unit": "files", "done": 1}]
    )
    assert (found["receiving"], found["sending"], found["granting"]) == (100.0, 0.0, 0.0)
    assert [get["rate"] for get in found["gets"]] == [20.0, 0.0, None]
    assert [(peer["node"], peer["rate"]) for peer in found["peers"]] == [("a", 20.0), ("c", 1.0), ("b", 0.0)]


def test_another_agent_has_no_rates_yet() -> None:
    found = looked(pid=8)
    assert found["receiving"] == 0
    assert {peer["rate"] for peer in found["peers"]} == {0}


def test_nothing_going_on_is_two_lines() -> None:
    found = {**looked(), "peers": []}
    assert len(report(Output(), found)) == 2


def test_no_terminal_gets_one_look(busy: Busy, mooncake: Mooncake) -> None:
    done = mooncake("top", "--interval", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "alpha, up 1 min 15 s: 2 objects, 3.0 MiB" in done.stdout
    assert "to 3 receivers" in done.stdout
    assert "1 more wait" in done.stdout
    assert r"beta\n" in done.stdout
    assert "idle" not in done.stdout
    assert busy.looks == 2


def test_json_is_a_line_a_look(busy: Busy, mooncake: Mooncake) -> None:
    done = mooncake("top", "--json", "--count", "2", "--interval", "0.2")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first.keys() == second.keys()
    assert first["receiving"] > 0
    assert second["gets"][0]["rate"] > 0
    assert mooncake("top", "-q", "--interval", "0.2").stdout.count("\n") == 1


def test_without_an_agent(mooncake: Mooncake) -> None:
    done = mooncake("top")
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.parametrize("how", ["q", "ctrl-c", "q before the first look"])
def test_it_quits_and_leaves_the_terminal_as_it_was(
    busy: Busy, environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    interval = "30" if how == "q before the first look" else "0.2"
    with Terminal(["top", "--interval", interval], environment, tmp_path / "cwd") as terminal:
        before = terminal.attributes
        terminal.until("looking" if interval == "30" else "receiving")
        terminal.type(b"\x03" if how == "ctrl-c" else b"q")
        assert terminal.status() == 0, terminal.shown
        assert terminal.attributes == before
    assert terminal.shown.rstrip().endswith("\x1b[?1049l")
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_the_terminal_as_it_was(
    busy: Busy, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with Terminal(["top", "--interval", "0.2"], environment, tmp_path / "cwd") as terminal:
        before = terminal.attributes
        terminal.until("receiving")
        terminal.process.send_signal(number)
        assert terminal.status() == 128 + number
        assert terminal.attributes == before
    assert "\x1b[?1049l" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_an_agent_that_goes_away_ends_it_with_a_word(
    agent: FakeAgent, busy: Busy, environment: dict[str, str], tmp_path: Path
) -> None:
    with Terminal(["top", "--interval", "0.2"], environment, tmp_path / "cwd") as terminal:
        terminal.until("receiving")
        agent.answers["GET /v1/status"] = AgentNotRunning(home=agent.home.root)
        assert terminal.status() == 3
    _, _, rest = terminal.shown.partition("\x1b[?1049l")
    assert "no agent runs" in rest


def test_a_terminal_that_cannot_draw_gets_one_look(busy: Busy, environment: dict[str, str], tmp_path: Path) -> None:
    with Terminal(["top", "--interval", "0.2"], {**environment, "TERM": "dumb"}, tmp_path / "cwd") as terminal:
        assert terminal.status() == 0
    assert "\x1b" not in terminal.shown
    assert "receiving" in terminal.shown


def test_a_small_terminal_is_not_scrolled(busy: Busy, environment: dict[str, str], tmp_path: Path) -> None:
    small = {**environment, "LINES": "4", "COLUMNS": "40"}
    with Terminal(["top", "--interval", "0.2"], small, tmp_path / "cwd") as terminal:
        terminal.until("receiving")
        os.write(terminal.control, b"q")
        assert terminal.status() == 0
    frames = terminal.shown.split("\x1b[H")[1:]
    assert all(frame.partition("\x1b[J")[0].count("\n") < 4 for frame in frames)
