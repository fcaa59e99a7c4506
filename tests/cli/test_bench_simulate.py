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
    for words in ("5 of 5 receivers", "p50", "p99", "last", "bound", "times the object", "a node"):
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
    def percent(number: int) -> str:
        return mooncake("bench", "simulate", *SMALL, "--random-seed", str(number), "--quiet").stdout

    assert percent(1) == percent(1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--receivers", "0"], "receiver"),
        (["--rate", "0mbit"], "--rate"),
        (["--slow", "many"], "--slow"),
        (["--chunk-size", "3MiB"], "--chunk-size"),
        (["--deaths", "101"], "die"),
    ],
)
def test_what_makes_no_sense_is_refused(mooncake: Mooncake, options: list[str], words: str) -> None:
    done = mooncake("bench", "simulate", *options)
    assert done.returncode == 2
    assert words in done.stderr
