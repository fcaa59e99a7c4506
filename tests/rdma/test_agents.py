"""Two agents with a device each, as a user starts them: one registers a checkpoint, the other gets it over RDMA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.p2pstore.samples import MIB, content, read_tree, write_tree
from tests.rdma.conftest import OURS, THEIRS, packets

WAIT = 180
FILES = {"config.json": b"{}", "model-1": content(6 * MIB + 1), "model-2": content(2 * MIB, 2)}
TOTAL = sum(map(len, FILES.values()))


class Agent:
    """The command line with a home and a device of its own."""

    def __init__(self, home: Path, device: str, metadata: str = "") -> None:
        self._options = ["--home", str(home), *(["--metadata", metadata] if metadata else [])]
        self._environment = {**os.environ, "MOONCAKE_RDMA_DEVICES": device, "HOME": str(home.parent)}

    def run(self, *words: str) -> Any:
        """What a command prints with ``--json``."""
        command = [sys.executable, "-m", "mooncake_cli", *self._options, *words, "--json"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=WAIT, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Agent]]:
    tmp_path = tmp_path_factory.mktemp("agents")
    one = Agent(tmp_path / "one", THEIRS)
    one.run("node", "start")
    other = Agent(tmp_path / "other", OURS, one.run("node", "status")["metadata"])
    other.run("node", "start")
    yield one, other
    for agent in (other, one):
        agent.run("node", "stop")


@pytest.mark.timeout(2 * WAIT)
def test_two_agents_share_a_checkpoint(agents: tuple[Agent, Agent], tmp_path: Path) -> None:
    one, other = agents
    write_tree(tmp_path / "checkpoint", FILES, ())
    one.run("register", str(tmp_path / "checkpoint"), "--name", "models/m")
    before = packets(OURS)
    got = other.run("get", "models/m", str(tmp_path / "copy"), "--transport", "rdma")
    assert read_tree(tmp_path / "copy") == FILES
    assert (got["transport"], got["bytes_pulled"]) == ("rdma", TOTAL)
    assert packets(OURS) - before >= TOTAL // 4096
    status = one.run("node", "status")
    assert (status["rdma_bytes_granted"], status["bytes_sent"]) == (TOTAL, 0)
    assert status["rdma"].startswith(f"{THEIRS}/roce/0/")


@pytest.mark.timeout(2 * WAIT)
def test_the_doctor_finds_the_devices_and_every_path_both_ways(agents: tuple[Agent, Agent]) -> None:
    one, other = agents
    status, theirs = one.run("node", "status"), other.run("node", "status")
    found = one.run("doctor", theirs["control"])
    verdicts = {check["subject"]: check["verdict"] for check in found["checks"]}
    assert found["ok"]
    for subject in ("RDMA rxe0 port 1", "RDMA rxe1 port 1", "rdma to ourselves"):
        assert verdicts[subject] == "ok"
    for a, b in ((status["node"], theirs["node"]), (theirs["node"], status["node"])):
        assert {verdicts[f"{a} to {b}, {name}"] for name in ("tcp", "rdma")} == {"ok"}
