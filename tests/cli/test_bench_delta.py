from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Mooncake


def test_people_see_what_moved_beside_a_full_get(mooncake: Mooncake, tmp_path: Path) -> None:
    where = tmp_path / "copies"
    where.mkdir()
    done = mooncake("bench", "delta", "--receivers", "1", "--size", "64MiB", "--changed", "5", "--directory", where)
    assert done.returncode == 0, done.stderr
    header, row, _, first, second = done.stdout.splitlines()
    assert header.split() == ["RECEIVER", "FULL", "GET", "TIME", "UPDATE", "OF", "ALL", "TIME"]
    assert row.split()[0] == "node1"
    assert "5.00% of " in first
    assert "changed, in 1 run; at most " in first
    assert "in chunks of 1.0 MiB" in first
    assert second.startswith("the last update took ")
    assert list(where.iterdir()) == []


def test_json(mooncake: Mooncake, tmp_path: Path) -> None:
    arguments = ("--receivers", "1", "--size", "32MiB", "--changed", "5", "--runs", "2", "--directory", tmp_path)
    done = mooncake("bench", "delta", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"]
    assert document["nodes"][0]["update"]["pulled"] == document["moved"]
    assert (document["runs"], document["rate"]) == (2, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--receivers", "0"], "receivers: 0 is not between 1 and 64"),
        (["--changed", "0"], "share: it is between 0 and a half"),
        (["--size", "1MiB"], "a checkpoint has 16 MiB at least"),
        (["--size", "x"], "--size: "),
        (["--directory", "/nowhere"], "--directory: /nowhere is no directory"),
    ],
)
def test_what_makes_no_sense(mooncake: Mooncake, arguments: list[str], said: str) -> None:
    done = mooncake("bench", "delta", *arguments)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
