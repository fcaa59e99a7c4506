"""Who holds a home, whether that is a process of this host, and how a holder notices that the home is not its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2pstore.agent import home_lock as module
from p2pstore.agent.home import Home
from p2pstore.agent.home_lock import Holder, HomeLock, holder, locked, waits_for
from p2pstore.errors import AgentRunning, HomeElsewhere, HomeUnusable
from tests.p2pstore.agent.full_socket import full_socket

ELSEWHERE = Holder(4711, "far", "another-boot", 1, 2, token="t")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.resolve(tmp_path / "home", {})
    home.create()
    return home


@pytest.fixture
def lock(home: Home) -> Iterator[HomeLock]:
    with locked(home) as lock:
        yield lock


def test_the_holder_is_named_and_forgotten(home: Home) -> None:
    assert holder(home) is None, "there is no lock yet"
    with locked(home):
        found = holder(home)
        assert found is not None
        assert (found.pid, found.here, found.on_this_host) == (os.getpid(), True, True)
        with pytest.raises(AgentRunning, match=f"pid {os.getpid()}"), locked(home):
            pass
    assert holder(home) is None
    assert home.lock.read_bytes() == b""


def test_a_text_without_more_than_a_pid_is_of_this_host() -> None:
    found = Holder.parse(b"4711\n")
    assert (found.pid, found.here) == (4711, True)


@pytest.mark.parametrize("text", [b"", b"x\n", b"-1\n[]", b"\n{", b"\xff\xfe", b"99999999999999\n{}", b"\n\n\n"])
def test_any_text_is_somebody_or_nobody(text: bytes) -> None:
    assert Holder.parse(text) == Holder()


def test_what_is_not_of_its_type_is_left_out() -> None:
    assert Holder.parse(b'5\n{"pid": 9, "host": 7, "boot": "b", "pids": true, "more": 1}') == Holder(5, boot="b")


def test_what_is_written_is_read_again() -> None:
    one = Holder.this_process()
    assert Holder.parse(one.text()) == one
    assert one.here


def test_another_host_and_another_container_are_told_apart() -> None:
    one = Holder.this_process()
    far = replace(one, boot="another-boot", host="far")
    boxed = replace(one, pids=one.pids + 1, host="this")
    assert (far.here, far.on_this_host, far.whereabouts) == (False, False, "far")
    assert (boxed.here, boxed.on_this_host) == (False, True)
    assert boxed.whereabouts == "this, in another container (PID namespace)"


def test_a_home_that_an_agent_of_another_host_holds(home: Home) -> None:
    home.lock.write_bytes(ELSEWHERE.text())
    with home.lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert holder(home) == ELSEWHERE
        with pytest.raises(HomeElsewhere, match=r"runs on far \(pid 4711\)"), locked(home):
            pass


def test_where_hosts_do_not_see_one_anothers_locks_a_sign_of_life_counts(home: Home) -> None:
    home.lock.write_bytes(ELSEWHERE.text())
    with pytest.raises(HomeElsewhere), locked(home):
        pass
    long_ago = time.time() - 10 * module.SILENT_SECONDS
    os.utime(home.lock, (long_ago, long_ago))
    with locked(home):
        assert home.lock.stat().st_mtime > long_ago


def test_a_holder_shows_that_it_lives(home: Home, lock: HomeLock) -> None:
    os.utime(home.lock, (1, 1))
    assert lock.lost() == ""
    assert home.lock.stat().st_mtime > 1


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    class Unseen:
        seen = False

        def __init__(self, *_: object, **__: object) -> None: ...

        def let_go(self) -> None: ...

    monkeypatch.setattr(module, "FileLock", Unseen)


@pytest.mark.usefixtures("unseen")
def test_on_a_file_system_without_locks_a_busy_agent_counts(home: Home) -> None:
    with full_socket(home.socket), pytest.raises(AgentRunning), locked(home):
        pass
    with locked(home):
        pass


@pytest.mark.usefixtures("unseen")
def test_on_a_file_system_without_locks_a_living_process_counts(home: Home) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        home.lock.write_bytes(replace(Holder.this_process(), pid=other.pid, started=0).text())
        found = holder(home)
        assert found is not None
        assert found.pid == other.pid
        with pytest.raises(AgentRunning, match=f"pid {other.pid}"), locked(home):
            pass
        other.communicate()
    assert holder(home) is None
    with locked(home):
        assert holder(home) is not None


def test_whoever_only_asks_stands_in_nobodys_way(home: Home) -> None:
    home.lock.write_bytes(b"")
    asking = home.lock.open("rb")
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.1, asking.close).start()
    with locked(home):
        assert holder(home) is not None


@pytest.mark.parametrize(
    ("what", "reason"),
    [("home", "no such file or directory"), ("lock", "no such file or directory"), ("replaced", "another one is in")],
)
def test_a_home_that_is_gone_is_lost(home: Home, lock: HomeLock, what: str, reason: str) -> None:
    assert lock.lost() == ""
    if what == "lock":
        home.lock.unlink()
    else:
        shutil.rmtree(home.root)
    if what == "replaced":
        home.create()
        home.lock.touch()
    assert reason in lock.lost()


def test_a_home_that_another_host_took_over_is_lost(home: Home, lock: HomeLock) -> None:
    home.lock.write_bytes(ELSEWHERE.text())
    assert lock.lost() == "an agent on far (pid 4711) has taken it over"


def test_a_file_system_that_cannot_be_asked_now_is_no_loss(
    home: Home, lock: HomeLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> None:
        def read(_: Path) -> bytes:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "read_bytes", read)

    fail(5)
    assert lock.lost() == ""
    fail(116)
    assert lock.lost() == "stale file handle"
    fail(107)
    assert lock.lost() == "transport endpoint is not connected"


def test_another_socket_is_told(home: Home, lock: HomeLock) -> None:
    lock.moved(home.root / "elsewhere.sock")
    found = holder(home)
    assert found is not None
    assert found.socket == str(home.root / "elsewhere.sock")
    assert lock.lost() == "", "it is the same holder"


def test_a_lock_that_cannot_be_had_is_named(home: Home) -> None:
    home.lock.mkdir()
    assert holder(home) is None
    with pytest.raises(HomeUnusable, match=r"agent\.lock: Is a directory"), locked(home):
        pass


def test_what_an_agent_waits_for(home: Home) -> None:
    assert waits_for(home) == ""
    home.waiting.write_text('{"for": "the moon"}')
    assert waits_for(home) == "the moon"
    for text in ("", "{", "[]", "{}"):
        home.waiting.write_text(text)
        assert waits_for(home) == ""


def test_a_link_in_the_place_of_the_lock_is_not_followed(home: Home, tmp_path: Path) -> None:
    """A home may lie where others can write."""
    other = tmp_path / "other"
    other.write_bytes(b"somebody's")
    home.lock.symlink_to(other)
    with pytest.raises(HomeUnusable, match="symbolic links"), locked(home):
        pass
    assert holder(home) is None
    assert other.read_bytes() == b"somebody's"


def test_a_pipe_in_the_place_of_the_lock_holds_up_nobody(home: Home) -> None:
    os.mkfifo(home.lock)
    assert holder(home) is None
