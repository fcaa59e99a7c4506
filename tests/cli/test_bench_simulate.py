from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Mooncake

SMALL = ("--receivers", "5", "--size", "64MiB", "--chunk-size", "1MiB", "--rate", "200mbit")
NEEDS_MATPLOTLIB = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")


def test_people_see_completion_bound_and_seed(mooncake: Mooncake) -> None:
    done = mooncake("bench", "simulate", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("last receiver"), "the time over S/B comes first"
    for words in (
        "times S/B; c =",
        "64 chunks",
        "5 of 5 receivers",
        "p50",
        "p99",
        "last",
        "bound",
        "times the object",
        "a node",
    ):
        assert words in done.stdout


@NEEDS_MATPLOTLIB
def test_the_document_and_the_plot(mooncake: Mooncake, tmp_path: Path) -> None:
    plot = tmp_path / "swarm.png"
    trouble = ("--slow", "1:20mbit", "--deaths", "1", "--zones", "2", "--zone-rate", "100mbit", "--arrivals", "1")
    done = mooncake("bench", "simulate", *SMALL, *trouble, "--plot", str(plot), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["finished"] + document["died"] >= 5
    assert document["unfinished"] == 0
    assert document["progress"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_same_options_give_the_same_run(mooncake: Mooncake) -> None:
    def over_copy(number: int) -> str:
        return mooncake("bench", "simulate", *SMALL, "--random-seed", str(number), "--quiet").stdout

    assert 1 < float(over_copy(1)) < 2
    assert over_copy(1) == over_copy(1)


def test_no_time_is_told_where_nobody_got_everything(mooncake: Mooncake) -> None:
    done = mooncake("bench", "simulate", *SMALL, "--kill-seed-after", "0.5")
    assert done.returncode == 0
    assert "nobody has everything" in done.stdout.splitlines()[0]


def test_links_that_are_not_equal_have_no_hop_cost(mooncake: Mooncake) -> None:
    done = mooncake("bench", "simulate", *SMALL, "--slow", "1:20mbit")
    assert done.returncode == 0
    assert "c =" not in done.stdout


def test_processors_that_all_share_are_told_of(mooncake: Mooncake) -> None:
    assert "processors" not in mooncake("bench", "simulate", *SMALL).stdout
    done = mooncake("bench", "simulate", *SMALL, "--processors", "2")
    assert done.returncode == 0, done.stderr
    assert "% busy; 2.20 s a GB, 0.20 ms a message, 0.15 ms a wake-up" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--receivers", "0"], "--receivers"),
        (["--zones", "0"], "--zones"),
        (["--sources", "0"], "--sources"),
        (["--slots", "0"], "--slots"),
        (["--size", "0"], "size is 0"),
        (["--rate", "0mbit"], "--rate"),
        (["--slow", "many"], "--slow"),
        (["--chunk-size", "3MiB"], "--chunk-size"),
        (["--deaths", "101"], "die"),
        (["--deaths", "101", "--calibrate"], "die"),
        (["--slow", "101:1mbit"], "slow"),
        (["--latency", "-1"], "--latency"),
        (["--arrivals", "nan"], "nan is no number"),
        (["--deaths", "-1"], "--deaths"),
        (["--processors", "-1"], "--processors"),
    ],
)
def test_what_makes_no_sense_is_refused(mooncake: Mooncake, options: list[str], words: str) -> None:
    done = mooncake("bench", "simulate", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "measuring" not in done.stderr, "that takes a minute"
