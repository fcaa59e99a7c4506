from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import signals
from engine.processes import start_time
from mooncake_cli.commands.bench_broadcast import summary
from tests.cli.conftest import Mooncake

NEEDS_MATPLOTLIB = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")


@NEEDS_MATPLOTLIB
def test_real_agents_on_loopback(mooncake: Mooncake, tmp_path: Path) -> None:
    plot = tmp_path / "broadcast.png"
    options = ("--receivers", "2", "--size", "2MiB", "--directory", str(tmp_path), "--plot", str(plot))
    done = mooncake("bench", "broadcast", *options, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"]
    assert document["size"] == 2 << 20
    assert [node["equal"] for node in document["nodes"]] == [True, True]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob("mooncake-broadcast-*")) == []


@pytest.mark.parametrize("number", signals.ending())
def test_nothing_is_left_of_one_that_is_told_to_end(environment: dict[str, str], tmp_path: Path, number: int) -> None:
    """Twice, as timeout(1) tells it: the second must not break off what cleans up at the first.

    An agent stands still meanwhile, so that it is not over before the first, and cleaned up before the second.
    """
    options = ["--receivers", "1", "--size", "1GiB", "--directory", str(tmp_path)]
    command = [sys.executable, "-m", "mooncake_cli", "bench", "broadcast", *options]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        assert bench.stderr.readline() == "2 agents are up\n"
        (made,) = tmp_path.glob("mooncake-broadcast-*")
        agents = [int(lock.read_text().split()[0]) for lock in made.glob("*/home/agent.lock")]
        assert len(agents) == 2
        os.kill(agents[0], signal.SIGSTOP)
        for _ in range(2):
            bench.send_signal(number)
            time.sleep(0.05)
        bench.communicate(timeout=60)
    assert bench.returncode == 128 + number
    assert list(tmp_path.glob("mooncake-broadcast-*")) == []
    assert [pid for pid in agents if start_time(pid)] == []


def test_people_see_times_and_who_sent_what(mooncake: Mooncake, tmp_path: Path) -> None:
    done = mooncake("bench", "broadcast", "--receivers", "1", "--size", "1MiB", "--directory", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "FROM seed" in done.stdout
    assert "last receiver after" in done.stdout
    assert "the seed sent 1.00 times the object" in done.stdout
    assert "s of processors for each GB received" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--receivers", "0"], "receivers"),
        (["--rate", "fast"], "--rate"),
        (["--slow", "1"], "--slow"),
        (["--slow", "1:10mbit"], "needs --rate"),
        (["--size", "no"], "--size"),
        (["--directory", "/nowhere/at/all"], "--directory"),
        (["--kill-seed-after", "-1"], "--kill-seed-after"),
        (["--plot", "figure.txt"], ".png"),
    ],
)
def test_what_makes_no_sense_is_refused(mooncake: Mooncake, options: list[str], words: str) -> None:
    done = mooncake("bench", "broadcast", *options)
    assert done.returncode == 2
    assert words in done.stderr


DOCUMENT = {
    "ok": True,
    "receivers": 2,
    "nodes": [{"equal": True, "error": ""}, {"equal": True, "error": ""}],
    "last": 12.0,
    "bound": 10.8,
    "over_copy": 1.1234,
    "c": 3.14,
    "percent_of_bound": 90.04,
    "seed_ratio": 1.2,
    "seed_killed": True,
    "busy": 0.62,
    "processor_seconds_per_gb": 5.25,
}


def test_the_summary_says_how_near_the_bound_it_was_and_what_the_processors_did() -> None:
    assert summary(DOCUMENT) == (
        "last receiver after 12 s, 1.12 times S/B, c = 3.1; 90.0% of the bound, 11 s\n"
        "the seed sent 1.20 times the object; then it was killed\n"
        "the agents took 5.2 s of processors for each GB received; all processors were busy 62% of the time"
    )


def test_the_summary_says_so_when_the_processors_decided() -> None:
    assert "processors decided" not in summary(DOCUMENT)
    assert summary({**DOCUMENT, "busy": 0.97}).endswith(
        "all processors were busy 97% of the time\nSo the processors decided how long it took, not the network."
    )


def test_the_summary_leaves_out_what_is_not_known() -> None:
    assert "busy" not in summary({**DOCUMENT, "busy": None})
    assert "c =" not in summary({**DOCUMENT, "c": None})
    assert summary({**DOCUMENT, "bound": None}).startswith("last receiver after 12 s\n")


def test_the_summary_of_a_broadcast_that_failed_tells_no_time() -> None:
    nodes = [{"equal": True, "error": ""}, {"equal": False, "error": "no live peer"}]
    assert summary({**DOCUMENT, "ok": False, "nodes": nodes, "busy": 0.97}) == (
        "1 of 2 receivers got everything\nthe seed sent 1.20 times the object; then it was killed"
    )
