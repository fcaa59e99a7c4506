"""What a broadcast takes of the processors is counted, and the threads are known by their names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.p2pstore.bench.test_broadcast import NEEDS_ROOT, can_limit

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "broadcast_processor.py"


@NEEDS_ROOT
def test_each_kind_of_thread_is_told_of() -> None:
    if why_not := can_limit():
        pytest.skip(why_not)
    command = [sys.executable, str(SCRIPT), "--receivers", "1", "--mib", "16", "--mbit", "80"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    spent = json.loads(done.stdout)
    for kind in ("all", "receive, hash, write", "plan", "send", "event loop"):
        assert spent[kind] > 0, (kind, spent)
