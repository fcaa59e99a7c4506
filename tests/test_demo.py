"""``make demo`` as a test: it succeeds, and whatever its end, nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 600
"""For some ten commands, each of which takes half a minute on a slow day."""

pytestmark = [
    pytest.mark.skipif(
        not Path(sys.executable).with_name("mooncake").exists(),
        reason="NO DEMO: the command 'mooncake' is not installed beside this Python; run 'make test'",
    ),
    pytest.mark.timeout(2 * SECONDS + 60),
]


def start(directory: Path, size: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DEMO_MIB": size, "TMPDIR": str(directory), "COLUMNS": "100"}
    command = [sys.executable, str(ROOT / "scripts/demo.py")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def processes_in(directory: Path) -> list[str]:
    """The command lines of processes that were given a path inside ``directory``, or work there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(directory) in words or str(directory) in os.readlink(process / "cwd"):
                found.append(words)
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_shows_the_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    demo = start(tmp_path, "8")
    output, _ = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 0, output
    assert "6 files, byte by byte: equal" in output
    assert "8.0 MiB by tcp from alpha" in output
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


@pytest.mark.parametrize("moment", ["alpha/agent.lock", "alpha/state/catalog.db", "beta/agent.lock"])
def test_an_interrupted_one_leaves_nothing(tmp_path: Path, moment: str) -> None:
    demo = start(tmp_path, "8")
    wait_for(lambda: demo.poll() is not None or list(tmp_path.glob(f"*/{moment}")))
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 130, output
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def test_a_bad_size_is_refused(tmp_path: Path) -> None:
    demo = start(tmp_path, "many")
    output, _ = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 1
    assert "DEMO_MIB is 'many'" in output
