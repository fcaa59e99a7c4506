"""The benchmark of GPUs runs, on a GPU that there is not, and says what it compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_it_measures_ours_and_verifies(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks/gpu.py"),
        "--fake",
        "--gib",
        "0.008",
        "--shards",
        "2",
        "--rounds",
        "1",
    ]
    done = subprocess.run(
        [*command, "--connections", "1", "2", "--directory", str(tmp_path), "--json"],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["contenders"]) == {f"get_into {way} x{n}" for way in ("tcp", "local") for n in (1, 2)}
    assert result["left_out"] == {}
    assert 0 < result["most_pinned_bytes"] <= 1 << 30
    assert all(found["gb_per_second"] > 0 for found in result["contenders"].values())
    assert not list(tmp_path.iterdir())
