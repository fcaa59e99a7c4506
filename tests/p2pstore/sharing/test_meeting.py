"""Processes meet, each of them here a thread: whoever comes first hands out what all share."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import Interrupted, UsageError
from p2pstore.sharing import meeting
from p2pstore.sharing.meeting import Met, meet

ROOT = Path(__file__).resolve().parents[3]
WAIT = 60.0
SHARE = 4096


def wanted() -> None:
    """A check that never objects."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir(0o700)
    return tmp_path / "d" / "0123456789abcdef"


class Comer(threading.Thread):
    """One that comes to meet."""

    def __init__(self, place: Path, rank: int, size: int, check: Callable[[], None] = wanted, **said: Any) -> None:
        super().__init__(daemon=True)
        self.met: Met | None = None
        self.fault: BaseException | None = None
        self._work = lambda: meet(place, {"rank": rank, **said}, size, SHARE, check)
        self.start()

    def run(self) -> None:
        try:
            self.met = self._work()
        except BaseException as error:
            self.fault = error

    def result(self) -> Met:
        self.join(WAIT)
        assert self.fault is None
        assert self.met is not None
        return self.met


def listens(place: Path) -> None:
    until = time.monotonic() + WAIT
    while not place.with_suffix(".sock").exists():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("size", [2, 5])
def test_all_know_all_and_reach_each(place: Path, size: int) -> None:
    met = [comer.result() for comer in [Comer(place, rank, size, slice=[rank, size]) for rank in range(size)]]
    for rank, each in enumerate(met):
        assert [member["rank"] for member in each.members] == list(range(size))
        assert each.members[rank]["slice"] == [rank, size]
        assert each.me == rank
        assert os.fstat(each.memory).st_size == size * SHARE
        for other, link in each.links.items():
            link.send(b"%d to %d" % (rank, other))
    assert len({os.fstat(each.memory).st_ino for each in met}) == 1
    for rank, each in enumerate(met):
        assert sorted(each.links) == [other for other in range(size) if other != rank]
        for other, link in each.links.items():
            link.settimeout(WAIT)
            assert link.recv(100) == b"%d to %d" % (other, rank)
        each.close()
        each.close()
        assert each.memory == -1
    assert list(place.parent.iterdir()) == []


def test_who_goes_is_seen_by_all_at_once(place: Path) -> None:
    one, two, three = (comer.result() for comer in [Comer(place, rank, 3) for rank in range(3)])
    two.close()
    for each in (one, three):
        each.links[1].settimeout(WAIT)
        assert each.links[1].recv(10) == b""
        each.close()


def test_those_who_came_do_without_who_does_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "MEET_SECONDS", 2.0)
    met = [Comer(place, rank, 8) for rank in (5, 2)]
    for comer in met:
        found = comer.result()
        assert [each["rank"] for each in found.members] in ([2, 5], [5], [2])  # on a slow day one is alone
        found.close()
    assert list(place.parent.iterdir()) == []


def test_who_is_alone_has_nothing_to_share(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "MEET_SECONDS", 0.05)
    found = meet(place, {"rank": 3}, 4, SHARE, wanted)
    assert (found.members, found.me, found.links, found.memory) == ([{"rank": 3}], 0, {}, -1)
    assert list(place.parent.iterdir()) == []


def test_what_a_killed_one_left_is_in_nobodys_way(place: Path) -> None:
    place.with_suffix(".lock").touch()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(place.with_suffix(".sock")))
    left.close()
    for comer in [Comer(place, rank, 2) for rank in range(2)]:
        comer.result().close()
    assert list(place.parent.iterdir()) == []


def test_a_rank_that_is_there_already_is_told(place: Path) -> None:
    first = Comer(place, 0, 2)
    listens(place)
    with pytest.raises(UsageError, match="rank 0 is here already"):
        meet(place, {"rank": 0}, 2, SHARE, wanted)
    second = Comer(place, 1, 2)
    assert len(first.result().members) == len(second.result().members) == 2
    for each in (first, second):
        each.result().close()


@pytest.mark.parametrize(
    "said", [b"", b"\xff\xff\xff\xff", b"\x02\0\0\0{}", b"\x03\0\0\0[1]", b"\x01\0\0\0{", b"\x02\0"]
)
def test_what_makes_no_sense_is_not_let_in(place: Path, said: bytes) -> None:
    first = Comer(place, 0, 2)
    listens(place)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(place.with_suffix(".sock")))
        stranger.sendall(said)
        if said not in {b"", b"\x02\0"}:
            stranger.settimeout(WAIT)
            assert stranger.recv(10) == b""
        Comer(place, 1, 2).result().close()
        first.result().close()


def test_the_wait_ends_when_it_is_not_wanted(place: Path) -> None:
    wanted_still = True

    def check() -> None:
        if not wanted_still:
            raise Interrupted(detail="not wanted")

    first = Comer(place, 0, 3, check)
    listens(place)
    second = Comer(place, 1, 3, check)
    wanted_still = False
    for each in (first, second):
        each.join(WAIT)
        assert isinstance(each.fault, Interrupted)
    assert list(place.parent.iterdir()) == []


def test_the_socket_is_in_a_directory_that_another_user_cannot_enter(place: Path) -> None:
    """Even one who could enter is not let in: see the next."""
    first = Comer(place, 0, 2)
    listens(place)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    if not os.geteuid():
        assert _as_another_user(place) == "PermissionError"
    Comer(place, 1, 2).result().close()
    first.result().close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users_process_is_not_let_in(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own lies where others cannot go, and its parents may be /
        place = Path(made) / "d" / "0123456789abcdef"
        place.parent.mkdir(0o700)
        first = Comer(place, 0, 2)
        listens(place)
        for directory in (place.parent, Path(made)):
            directory.chmod(0o711)
        place.with_suffix(".sock").chmod(0o777)
        assert _as_another_user(place) == "closed"
        Comer(place, 1, 2).result().close()
        first.result().close()
    assert "another user's process is not let in" in caplog.text


def _as_another_user(place: Path) -> str:
    program = f"""
import os, socket
os.setuid(65534)
try:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect({str(place.with_suffix(".sock"))!r})
    sock.sendall(b"\\x0a\\0\\0\\0" + b'{{"rank":1}}')
    print("closed" if sock.recv(10) == b"" else "let in")
except ConnectionError:
    print("closed")
except PermissionError:
    print("PermissionError")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT, check=True)
    return done.stdout.strip()
