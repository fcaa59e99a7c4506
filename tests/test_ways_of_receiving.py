"""The benchmark of ways of receiving runs each of them, and each brings the file whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "ways_of_receiving.py"


def test_every_way_brings_the_file(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--mib", "16", "--rounds", "1", "--connections", "1,2", "--json"]
    done = subprocess.run(
        [*command, "--file", str(tmp_path / "received")], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["connections"] for row in rows} == {1, 2}
    assert len(rows) == 2 * len({row["way"] for row in rows})
    assert len(rows) >= 12
    assert all(row["seconds"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []
