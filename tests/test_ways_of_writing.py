"""The benchmark of ways of writing runs each of them, and each writes what was read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "ways_of_writing.py"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("--threads", "4,many"), "'4,many' are no counts, such as 4,8"),
        (("--rounds", "0"), "'0' is no count, such as 4"),
        (("--directory", "/nowhere"), "no such directory: /nowhere"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(wrong: tuple[str, str], sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *wrong], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith(sentence)


def test_every_way_writes_the_files(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--gib", "0.03", "--rounds", "1", "--threads", "1,3", "--json"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path)], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 1 + 2 * len({row["way"] for row in rows} - {"cp of all eight"})
    assert len(rows) >= 9, "one may be forbidden here"
    assert all(row["gb_per_second"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []
