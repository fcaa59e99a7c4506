"""A socket that is removed is made again, and a home that is gone is told of, once. Time is not waited for."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from p2pstore.agent import home_keeper as module
from p2pstore.agent.home import Home
from p2pstore.agent.home_keeper import HomeKeeper
from p2pstore.errors import HomeLost, StorageError

WAIT = 60.0

GONE = ["no such file or directory"] * 2
"""What ends a keeper's work."""


class Lock:
    """The home's lock, which says of the home what a test wants, look after look."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)
        self.sockets: list[Path] = []

    def lost(self) -> str:
        return self.reasons.pop(0)

    def moved(self, path: Path) -> None:
        self.sockets.append(path)


class Kept:
    """A home and its keeper; at the places in ``refused`` nobody can listen."""

    def __init__(self, home: Home, *reasons: str) -> None:
        self.lock = Lock(*reasons)
        self.refused: set[Path] = set()
        self.made: list[Path] = []
        self.lost: list[HomeLost] = []
        self.keeper = HomeKeeper(home, self.lock, self.listen, self.lost.append)  # type: ignore[arg-type]

    async def listen(self, path: Path) -> None:
        if path in self.refused:
            raise StorageError(path=path, detail="not here")
        await asyncio.to_thread(path.touch)
        self.made.append(path)

    async def keep(self) -> None:
        await asyncio.wait_for(self.keeper.keep(), WAIT)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(root=tmp_path / "root", state=tmp_path / "root" / "state", run=tmp_path / "run", single=False)
    home.create()
    home.socket.touch()
    return home


async def test_a_home_that_is_gone_is_told_of_once(home: Home) -> None:
    kept = Kept(home, "", *GONE)
    await kept.keep()
    (lost,) = kept.lost
    assert str(lost) == f"the agent ended, since its home {home.root} is gone: no such file or directory"
    assert kept.made == [], "its socket was there"


async def test_one_miss_is_no_loss(home: Home) -> None:
    kept = Kept(home, "a file server was started again", "", "the same", "", *GONE)
    await kept.keep()
    assert kept.lock.reasons == []


async def test_a_socket_that_was_removed_is_made_again(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.socket.unlink()
    kept = Kept(home, "", "", *GONE)
    await kept.keep()
    assert kept.made == kept.lock.sockets == [home.socket]
    assert f"the agent's socket was removed; it is {home.socket} again" in caplog.text


async def test_its_directory_is_made_again_too(home: Home) -> None:
    shutil.rmtree(home.run)
    kept = Kept(home, "", *GONE)
    await kept.keep()
    assert kept.made == [home.socket]
    assert home.run.stat().st_mode & 0o777 == 0o700


async def test_where_it_cannot_be_made_again_it_moves_into_the_home(home: Home) -> None:
    """A logout takes the runtime directory away, which its user cannot make."""
    shutil.rmtree(home.run)
    kept = Kept(home, "", "", *GONE)
    kept.refused = {home.socket}
    await kept.keep()
    assert kept.made == kept.lock.sockets == [home.root / "run" / "agent.sock"]


async def test_what_cannot_be_made_is_said_once_and_tried_again(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.socket.unlink()
    kept = Kept(home, "", "", "", *GONE)
    kept.refused = {home.socket, home.root / "run" / "agent.sock"}
    await kept.keep()
    assert caplog.text.count(f"cannot be made again: {home.socket}: not here") == 1


async def test_a_file_system_that_does_not_answer_is_told_of(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.01)
    answers = threading.Event()
    kept = Kept(home, *GONE)
    told = caplog.records

    def slow() -> str:
        assert answers.wait(WAIT)
        return kept.lock.reasons.pop(0)

    kept.lock.lost = slow  # type: ignore[method-assign]
    keeping = asyncio.ensure_future(kept.keep())
    while not told:  # noqa: ASYNC110 - a log is no event
        await asyncio.sleep(0.01)
    answers.set()
    await keeping
    assert f"the file system of {home.root} has not answered" in caplog.text


async def test_a_socket_that_the_agent_removes_at_its_end_is_not_made_again(home: Home) -> None:
    """An agent that was stopped, and ended when it went on, left a listening socket that nobody closed."""
    kept = Kept(home, "", "", *GONE)
    await kept.keeper.end()
    home.socket.unlink()
    await kept.keep()
    assert kept.made == []
    assert not home.socket.exists()


async def test_the_end_waits_for_a_socket_that_is_being_made(home: Home) -> None:
    kept = Kept(home, "", *GONE)
    begun, may = asyncio.Event(), asyncio.Event()

    async def slow(path: Path) -> None:
        begun.set()
        await may.wait()
        kept.made.append(path)

    kept.keeper._listen_again = slow
    home.socket.unlink()
    keeping = asyncio.ensure_future(kept.keep())
    await asyncio.wait_for(begun.wait(), WAIT)
    ending = asyncio.ensure_future(kept.keeper.end())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not ending.done(), "who ends would not know of it"
    may.set()
    await asyncio.wait_for(asyncio.gather(ending, keeping), WAIT)
    assert kept.made == [home.socket]
