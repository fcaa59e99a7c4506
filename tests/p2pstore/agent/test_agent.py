"""The agent's process: how it ends when its node cannot go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.launch import ensure_agent, stop_agent
from p2pstore.errors import AgentEnded, AgentNotRunning
from p2pstore.settings.settings import Settings

ROOT = Path(__file__).resolve().parents[3]

BROKEN = """
import sys
from engine.net.backoff import Backoff
from p2pstore import supervisor
from p2pstore.agent.agent import main
from p2pstore.cluster.membership import Membership

async def keep(self):
    raise RuntimeError("a bug")

supervisor.RESTARTS = Backoff(0.01, 0.01)
Membership.keep = keep
sys.exit(main(sys.argv[1:]))
"""
"""An agent whose lease keeper does nothing but fail."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home", {})


def test_an_agent_that_cannot_go_on_ends_loudly_and_leaves_its_reason(home: Home, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, "--home", str(home.root), "--metadata", "memory://broken", "--node", "n"],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
    )
    assert done.returncode == 1, done.stderr
    why = "the node ended itself: its lease keeper does not work (failures in a row: 10): RuntimeError: a bug"
    assert f"ERROR mooncake: {why}\n" in done.stderr
    assert "Traceback" in done.stderr
    with pytest.raises(AgentEnded, match="its lease keeper does not work") as caught:
        AgentClient(home).status()
    assert caught.value.exit_code == 3
    with pytest.raises(AgentEnded):
        stop_agent(home)

    flags = {"metadata": "memory://agent", "home": str(home.root)}
    assert ensure_agent(home, Settings.load(flags, environ=dict(os.environ), cwd=tmp_path, system=tmp_path / "none"))
    stop_agent(home)
    with pytest.raises(AgentNotRunning) as gone:
        AgentClient(home).status()
    assert not isinstance(gone.value, AgentEnded), "that one was told to end"


def test_a_word_that_cannot_be_read_is_no_reason(home: Home) -> None:
    home.create()
    for text in ("", "[]", "{"):
        home.end_error.write_text(text)
        with pytest.raises(AgentNotRunning) as caught:
            AgentClient(home).status()
        assert not isinstance(caught.value, AgentEnded)
