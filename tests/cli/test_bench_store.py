from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Mooncake

QUICK = ("--duration", "0.2", "--rounds", "2", "--size", "64KiB", "--batch", "2")


def test_what_people_see(mooncake: Mooncake) -> None:
    done = mooncake("bench", "store", *QUICK, "--operation", "put,exist", "--where", "own")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split()[:5] == ["OP", "SIZE", "BATCH", "THREADS", "ENGINE"]
    assert [row.split()[:6] for row in rows] == [
        ["put", "64", "KiB", "2", "1", "ours"],
        ["exist", "64", "KiB", "2", "1", "ours"],
    ]
    assert rows[1].split()[7] == "-"


def test_what_scripts_get_and_a_drawing(mooncake: Mooncake, tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("NOTHING IS DRAWN: matplotlib is not installed")
    file = tmp_path / "store.svg"
    done = mooncake("bench", "store", *QUICK, "--operation", "get", "--json", "--plot", str(file))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["where"], answer["mooncake_version"]) == ("other", None)
    assert [row["engine"] for row in answer["rows"]] == ["ours", "ours-tcp"]
    text = file.read_text()
    assert text.startswith("<?xml")
    assert "socket" not in text


def test_what_makes_no_sense(mooncake: Mooncake) -> None:
    for options in (
        ("--operation", "fly"),
        ("--size", "0"),
        ("--threads", "100"),
        ("--plot", "x.txt"),
        ("--rounds", "0"),
    ):
        done = mooncake("bench", "store", *options)
        assert (done.returncode, done.stdout) == (2, ""), options
