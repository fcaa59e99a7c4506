"""The agent's process: how it ends when its node cannot go on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.launch import ensure_agent, stop_agent
from p2pstore.errors import AgentEnded, AgentNotRunning, AgentRunning, MooncakeError, StorageError
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


HANGING = """
import asyncio, sys, threading
from p2pstore.agent import agent

start = agent.Agent._start

async def hang(self):
    node = await start(self)
    begun = threading.Event()
    self.hanging = asyncio.ensure_future(asyncio.to_thread(lambda: (begun.set(), threading.Event().wait())))
    await asyncio.to_thread(begun.wait)
    self.stop()
    return node

agent.Agent._start = hang
sys.exit(agent.main(sys.argv[1:]))
"""
"""An agent that is told to end while one of its threads waits for a disk that does not answer."""


def test_a_thread_that_hangs_does_not_keep_an_agent_from_ending(home: Home) -> None:
    subprocess.run(
        [sys.executable, "-c", HANGING, "--home", str(home.root), "--metadata", "memory://hanging", "--node", "n"],
        check=True,
        timeout=100,
        cwd=ROOT,
    )


REFUSING = """
import json, os, sys
from pathlib import Path
import pytest
from p2pstore.agent import elsewhere
from p2pstore.agent.agent import main
from tests.refusing import RefusingFileSystem

home, script, place, *arguments = sys.argv[1:]
Path(home).mkdir(exist_ok=True)
remote = RefusingFileSystem(Path(home), pytest.MonkeyPatch())
for call, number in json.loads(script):
    remote.refuses(call, number)
elsewhere._candidates = lambda digest: [(Path(place), digest)]
sys.exit(main(["--home", home, *arguments]))
"""
"""An agent whose home lies on a file system that refuses what a script says."""

NUMBERS = [errno.ENOTSUP, errno.EINVAL, errno.EPERM]
CALLS = ["flock", "lock_range", "chmod", "fsync of a directory", "map_shared", "ftruncate", "bind", "statvfs"]


@contextlib.contextmanager
def refusing_agent(home: Home, script: list[tuple[str, int]], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    place = home.root.with_name("place")
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-c", REFUSING, str(home.root), json.dumps(script), str(place), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def answer_of(home: Home, process: subprocess.Popen[str]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        try:
            return AgentClient(home).status()
        except MooncakeError:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("number", NUMBERS)
def test_an_agent_starts_whatever_the_file_system_of_its_home_refuses(home: Home, number: int) -> None:
    script = [(call, number) for call in CALLS]
    memory = ("--metadata", "memory://refusing", "--node", "n")
    with refusing_agent(home, script, *memory) as process:
        status = answer_of(home, process)
        assert status["pid"] == process.pid
        with refusing_agent(home, script, *memory) as second:
            assert second.wait(60) == AgentRunning.exit_code
            assert f"(pid {process.pid})" in str(second.communicate()[1])
        assert answer_of(home, process)["pid"] == process.pid
    assert process.returncode == 0
    with refusing_agent(home, script, *memory) as process:
        assert answer_of(home, process)["pid"] == process.pid


@pytest.mark.parametrize("call", CALLS)
def test_an_agent_starts_without_one_call(home: Home, call: str) -> None:
    with refusing_agent(home, [(call, errno.EOPNOTSUPP)], "--metadata", "memory://refusing") as process:
        assert answer_of(home, process)["pid"] == process.pid


@pytest.mark.parametrize("call", ["flock", "map_shared", "fsync of a directory"])
def test_an_etcd_of_its_own_keeps_its_data_where_it_can(home: Home, call: str) -> None:
    with refusing_agent(home, [(call, errno.ENOSYS)]) as process:
        assert answer_of(home, process)["embedded_etcd"]
        assert not (home.etcd / "data").exists()
        (data,) = home.root.with_name("place").glob("*/data")
        assert data.is_dir()
    assert process.returncode == 0


@pytest.mark.parametrize(("call", "number"), [("flock", errno.EIO), ("open", errno.EROFS), ("open", errno.EDQUOT)])
def test_a_home_that_is_broken_or_full_is_told_as_that(home: Home, call: str, number: int) -> None:
    home.create()
    with refusing_agent(home, [(call, number)], "--metadata", "memory://refusing") as process:
        assert process.wait(60) == StorageError.exit_code
        said = process.communicate()[1]
    assert os.strerror(number) in said
    assert "Traceback" not in said
