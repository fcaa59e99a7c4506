"""The benchmark of several GPUs runs, on GPUs that there are not, and says what it compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS = [
    "one", "replicate", "shard", "replicate by processes", "shard by processes", "replicate apart", "shard apart",
]  # fmt: skip


def test_every_way_is_taken_and_verified(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpus.py"), "--fake", "--gib", "0.01", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path), "--json"],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["ways"]) == WAYS
    for way, found in result["ways"].items():
        most = 2.5 if way.endswith("apart") else 1.5
        assert 0.9 < found["received_times"] < most, "a chunk that is late may be asked for twice"
        assert found["seconds"] > 0
    assert list(tmp_path.iterdir()) == []
