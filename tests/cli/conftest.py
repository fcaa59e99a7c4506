from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pstore.agent.home import Home
from tests.cli.fake_agent import FakeAgent
from tests.cli.store_processes import Pool
from tests.p2pstore.kv.master.table import Served, Table

ROOT = Path(__file__).resolve().parents[2]

COMMAND_TIMEOUT = 200.0
"""Seconds for one command: some start several processes, each of which takes half a minute on a busy machine."""

Mooncake = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home", {})


@pytest.fixture
def agent(home: Home) -> Iterator[FakeAgent]:
    fake = FakeAgent(home)
    yield fake
    fake.close()


@pytest.fixture
def table() -> Table:
    """What the store's master has."""
    return Table()


@pytest.fixture
def store(table: Table) -> Iterator[Served]:
    """The metrics port of a store's master that is a table."""
    served = Served(table)
    yield served
    served.close()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A store of processes: a master, and somebody who gives memory."""
    directory = tmp_path_factory.mktemp("pool")
    made = Pool(
        {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        directory,
    )
    yield made
    made.close()


@pytest.fixture
def environment(home: Home, tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of the machine's own configuration counts."""
    (tmp_path / "cwd").mkdir(exist_ok=True)
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ}
    return {
        **kept,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "xdg-state"),
        "XDG_RUNTIME_DIR": str(tmp_path / "no-runtime"),
        "MOONCAKE_HOME": str(home.root),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "TERM": "xterm",
    }


@pytest.fixture
def mooncake(environment: dict[str, str], tmp_path: Path) -> Mooncake:
    """Runs the real console entry in a process of its own."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mooncake_cli", *arguments],
            env={**environment, **more},
            cwd=tmp_path / "cwd",
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )

    return run
