"""The tours of docs/store.md and of README, their commands and its program run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import reserved_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
TEXT = (ROOT / "docs/store.md").read_text()
TOUR = TEXT.partition("## A tour\n")[2].partition("\n## ")[0]
SHELL = re.findall(r"^```sh\n(.*?)^```", TOUR, re.MULTILINE | re.DOTALL)
PROGRAM = re.findall(r"^```python\n(.*?)^```", TOUR, re.MULTILINE | re.DOTALL)
SECONDS = 200


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Somebody's home, whose settings say ports that are free."""
    clients, metrics = reserved_port(2), reserved_port()
    return {
        "HOME": str(tmp_path),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MOONCAKE_MASTER_LISTEN": f":{clients}",
        "MOONCAKE_MASTER_METRICS": f":{metrics}",
        "MOONCAKE_MASTER": f"127.0.0.1:{clients}",
        "MOONCAKE_MASTER_ADMIN": f"127.0.0.1:{metrics}",
    }


@contextmanager
def terminal(command: str, environment: dict[str, str], directory: Path) -> Iterator[str]:
    """One whose command runs until it is told to end; what it says first."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        yield process.stderr.readline()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")


def test_the_tour(environment: dict[str, str], tmp_path: Path) -> None:
    master, give, commands = SHELL
    (program,) = PROGRAM
    with (
        terminal(master.strip(), environment, tmp_path) as said,
        terminal(give.strip(), environment, tmp_path) as given,
    ):
        assert said.startswith("the master serves clients at 127.0.0.1:")
        assert given.startswith("256.0 MiB at 127.0.0.1:")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "put 20.0 MiB under blocks/17" in done.stderr
        assert "nobody has put it, as far back as this master remembers" in done.stdout
        assert "removed 1 key" in done.stderr
        assert "127.0.0.1:50051" in program
        done = subprocess.run(
            [sys.executable, "-c", program.replace("127.0.0.1:50051", environment["MOONCAKE_MASTER"])],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "1000000\n"), done.stderr


def test_the_program_of_our_client(environment: dict[str, str], tmp_path: Path) -> None:
    section = TEXT.partition("## Our client\n")[2].partition("\n## ")[0]
    (program,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    with terminal(SHELL[0].strip(), environment, tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("127.0.0.1:50051", environment["MOONCAKE_MASTER"])],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[b'twenty', None, b'twenty-one']\n10\n"), done.stderr


def test_readmes_tour(environment: dict[str, str], tmp_path: Path) -> None:
    section = README.partition("## Values by key\n")[2].partition("\n## ")[0]
    master, give, commands = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    with terminal(master.strip(), environment, tmp_path), terminal(give.strip(), environment, tmp_path):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("hello\nit is there: 6 B, at 127.0.0.1:")


def test_each_cause_of_the_table_is_one() -> None:
    """Those that ``why`` knows by now, in its tests, and in the page."""
    from p2pstore.kv.master.advice import ENDED
    from p2pstore.kv.master.why_clients import why_callers
    from p2pstore.kv.master.why_key import why_key
    from tests.p2pstore.kv.master.test_why_clients import CALLERS
    from tests.p2pstore.kv.master.test_why_key import KEYS
    from tests.p2pstore.kv.master.why_facts import POOL

    known = {finding.cause for key, _, _ in KEYS.values() for finding in why_key(key, POOL)}
    known |= {finding.cause for caller, pool, _, _ in CALLERS.values() for finding in why_callers([caller], pool)}
    known |= ENDED.keys()
    table = TEXT.partition("## When the hit rate is 0\n")[2]
    named = {
        word for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in re.findall(r"`([^`]+)`", cell)
    }
    assert named <= known
