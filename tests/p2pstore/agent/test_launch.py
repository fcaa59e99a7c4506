from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2pstore.agent.launch as launch
from engine.files.system import system
from engine.processes import ProcessHandle
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.launch import ensure_agent, left_behind, log_tail, stop_agent
from p2pstore.errors import (
    AgentNotRunning,
    AgentStartFailed,
    AgentUnreachable,
    HomeUnusable,
    ListenRefused,
    MooncakeError,
    StorageError,
    UsageError,
)
from p2pstore.settings.settings import Settings
from tests.cli.fake_agent import FakeAgent

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.resolve(tmp_path / "home", {})
    yield home
    with contextlib.suppress(AgentNotRunning):
        stop_agent(home)


def settings(tmp_path: Path, **flags: object) -> Settings:
    flags = {"metadata": "memory://launch", "home": str(tmp_path / "home"), **flags}
    return Settings.load(flags, environ=dict(os.environ), cwd=tmp_path, system=tmp_path / "none")


def test_an_agent_is_started_once_and_stopped(home: Home, tmp_path: Path) -> None:
    assert ensure_agent(home, settings(tmp_path, node="one")) is True
    status = AgentClient(home).status()
    assert status["node"] == "one"
    assert os.getsid(status["pid"]) == status["pid"], "it has left our session"
    assert ensure_agent(home, settings(tmp_path)) is False
    stopped = stop_agent(home)
    assert (stopped.pid, stopped.terminated) == (status["pid"], False)
    with pytest.raises(AgentNotRunning):
        stop_agent(home)


def test_a_verbose_agent_logs_all_that_it_can(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_agent(home, settings(tmp_path))
    stop_agent(home)
    assert " DEBUG " not in home.log.read_text()
    monkeypatch.setenv("MOONCAKE_LOG_LEVEL", "error")
    ensure_agent(home, settings(tmp_path), verbose=True)
    assert " DEBUG " in home.log.read_text()


def test_a_full_disk_is_named_though_nothing_can_be_logged(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(system, "pwrite", full)
        with pytest.raises(StorageError, match=r"start\.lock: No space left on device"):
            ensure_agent(home, settings(tmp_path))
    home.lock.mkdir()
    with pytest.raises(StorageError, match=r"agent\.lock: Is a directory"):
        ensure_agent(home, settings(tmp_path))


def test_a_log_level_that_is_none_is_named(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONCAKE_LOG_LEVEL", "loud")
    with pytest.raises(UsageError, match="MOONCAKE_LOG_LEVEL: 'LOUD' is none of DEBUG, INFO, WARNING, ERROR"):
        ensure_agent(home, settings(tmp_path))


def test_the_agent_does_not_stay_in_our_directory(home: Home, tmp_path: Path) -> None:
    ensure_agent(home, settings(tmp_path))
    pid = AgentClient(home).status()["pid"]
    assert os.readlink(f"/proc/{pid}/cwd") == str(home.root)
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
    assert os.readlink(f"/proc/{pid}/fd/2") == str(home.log)


def test_many_starters_get_one_agent(home: Home, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from p2pstore.settings.settings import Settings; from p2pstore.agent.home import Home; from p2pstore.agent.launch import ensure_agent\n"
        "s = Settings.load({'metadata': 'memory://launch', 'home': sys.argv[1]})\n"
        "print(ensure_agent(Home.resolve(s.home), s))"
    )
    command = [sys.executable, "-c", code, str(home.root)]
    starters = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    outcomes = [starter.communicate(timeout=90) for starter in starters]
    assert sorted(out.strip() for out, _ in outcomes) == ["False", "False", "False", "True"], outcomes


def test_one_started_by_hand_at_the_same_moment_is_found(home: Home, tmp_path: Path) -> None:
    """Ours loses the race for the lock; the winner answers a little later."""
    home.create()
    released = threading.Event()

    def hold_then_serve() -> None:
        with home.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write("12345\n")
            lock.flush()
            locked.set()
            released.wait(30)
            fakes.append(FakeAgent(home))
            served.wait(30)

    fakes: list[FakeAgent] = []
    locked, served = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold_then_serve)
    holder.start()
    assert locked.wait(60)
    # Long enough for ours to try, fail and end in most runs; the outcome is the same where it is not.
    threading.Timer(2.0, released.set).start()
    try:
        assert ensure_agent(home, settings(tmp_path)) is False
    finally:
        released.set()
        served.set()
        holder.join(30)
        fakes[0].close()


def test_what_the_agent_said_when_it_failed_is_raised(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ListenRefused):
        ensure_agent(home, settings(tmp_path, listen="0.0.0.0"))
    assert ensure_agent(home, settings(tmp_path)) is True, "an old failure does not stand in the way"


def test_one_that_ends_without_a_word_is_quoted(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; print('first', file=sys.stderr); print('no such thing', file=sys.stderr); sys.exit(9)"
    monkeypatch.setattr(launch, "_command", lambda *_: [sys.executable, "-c", script])
    with pytest.raises(AgentStartFailed) as caught:
        ensure_agent(home, settings(tmp_path))
    assert str(caught.value) == "the agent did not start: it ended with status 9; its log ends: first | no such thing"


def test_one_that_is_killed_is_told_apart(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(launch, "_command", lambda *_: [sys.executable, "-c", script])
    with pytest.raises(AgentStartFailed, match="ended with signal 9; its log is empty"):
        ensure_agent(home, settings(tmp_path))


class Clock:
    """Time that passes by sleeping alone, so that what is due does not depend on the machine."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_one_that_never_answers_is_ended(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(launch, "time", Clock())
    before, told = len(launch._children), list[str]()
    with pytest.raises(AgentStartFailed, match=r"did not answer within 90 s"):
        ensure_agent(home, settings(tmp_path), tell=told.append)
    assert told == [f"the agent starts slowly: no answer for 10 s; its log is {home.log}"]
    (child,) = launch._children[before:]
    assert child.wait(30) == -signal.SIGTERM


def test_without_a_process_for_it_the_home_is_not_blamed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(StorageError, match=f"^{sys.executable}: Resource temporarily unavailable") as caught:
        ensure_agent(home, settings(tmp_path))
    assert "processes" in caught.value.hint


def test_an_agent_that_hangs_is_ended_by_signal(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds its lock and its socket, and answers nobody."""
    home.create()
    script = (
        "import fcntl, os, socket, sys, time\n"
        "lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); lock.write(str(os.getpid())); lock.flush()\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[2]); s.listen()\n"
        "print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(home.lock), home.socket.name]
    with subprocess.Popen(command, cwd=home.run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        monkeypatch.setattr(AgentClient.__init__, "__kwdefaults__", {"timeout": 0.3})
        stopped = stop_agent(home)
        assert (stopped.pid, stopped.terminated) == (process.pid, True)
        assert process.wait(30) == -signal.SIGTERM


def test_an_agent_that_hangs_is_not_started_over(home: Home, tmp_path: Path) -> None:
    agent = FakeAgent(home)
    agent.answers["GET /v1/status"] = b"garbage\r\n\r\n"
    try:
        with pytest.raises(AgentUnreachable):
            ensure_agent(home, settings(tmp_path))
    finally:
        agent.answers["GET /v1/status"] = MooncakeError(detail="over")
        agent.close()


def test_an_agent_killed_with_9_is_recovered_from(home: Home, tmp_path: Path) -> None:
    ensure_agent(home, settings(tmp_path))
    first = AgentClient(home).status()["pid"]
    os.kill(first, signal.SIGKILL)
    with ProcessHandle(first) as process:
        assert process.ended(60)
    assert home.socket.exists(), "it left its socket behind"
    with pytest.raises(AgentNotRunning):
        AgentClient(home).status()
    assert ensure_agent(home, settings(tmp_path)) is True
    assert AgentClient(home).status()["pid"] != first


def test_an_etcd_that_a_dead_agent_left_is_found_and_ended(home: Home, tmp_path: Path) -> None:
    from p2pstore.agent.embedded_etcd import find_etcd

    try:
        find_etcd()
    except MooncakeError as error:
        pytest.skip(f"no etcd here: {error}")
    ensure_agent(home, settings(tmp_path, metadata=None))
    agent = AgentClient(home).status()["pid"]
    os.kill(agent, signal.SIGKILL)
    with ProcessHandle(agent) as process:
        assert process.ended(60)
    etcd = left_behind(home)
    assert etcd is not None
    stopped = stop_agent(home)
    assert (stopped.pid, stopped.etcd_pid) == (None, etcd)
    assert left_behind(home) is None
    with pytest.raises(AgentNotRunning):
        stop_agent(home)


def test_the_end_of_the_log(home: Home) -> None:
    assert log_tail(home, 3) == []
    home.create()
    home.log.write_text("".join(f"{i}\n" for i in range(10_000)))
    assert log_tail(home, 2) == ["9998", "9999"]


def test_the_command_line_names_what_ps_should_show(home: Home, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("")
    given = Settings.load(
        {"listen": "127.0.0.2", "node": "n", "insecure": True}, config=tmp_path / "c.toml", environ={}, cwd=tmp_path
    )
    assert launch._command(home, given)[1:] == [
        *["-m", "p2pstore.agent", "--home", str(home.root), "--config", str(tmp_path / "c.toml")],
        *["--listen", "127.0.0.2", "--node", "n", "--insecure"],
    ]


def test_waiting_for_the_start_of_another_command_has_an_end(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.create()
    monkeypatch.setattr(launch, "START_TIMEOUT", 0.3)
    with home.start_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(AgentStartFailed, match="another command has been starting it"):
            ensure_agent(home, settings(tmp_path))
        assert time.monotonic() - began < 60, "it waits for its own time alone"


def test_a_link_in_the_place_of_the_lock_is_not_followed(home: Home, tmp_path: Path) -> None:
    home.create()
    other = tmp_path / "other"
    other.write_bytes(b"somebody's")
    home.start_lock.symlink_to(other)
    with pytest.raises(HomeUnusable, match="symbolic links"):
        ensure_agent(home, settings(tmp_path))
    assert other.read_bytes() == b"somebody's"


def test_a_traceback_in_the_log_is_told_by_its_last_line(tmp_path: Path) -> None:
    home = Home.resolve(tmp_path / "home")
    home.log.parent.mkdir(parents=True)
    home.log.write_text('started\nTraceback (most recent call last):\n  File "x", line 1, in y\nOSError: no\n')
    assert launch._quoted_log(home) == "; its log ends: started | OSError: no"
