"""What a start waits for, how long, and what it says meanwhile. Time is not waited for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from engine.errors import NoSuchAddress
from engine.net.backoff import Backoff
from p2pstore.agent import readiness as module
from p2pstore.agent.home import Home
from p2pstore.agent.readiness import until_ready
from p2pstore.errors import MetadataRefused, MetadataUnavailable
from p2pstore.metadata.memory import MemoryStore
from p2pstore.metadata.store import ServerInfo
from p2pstore.node_options import NodeOptions

WAIT = 60.0
DOWN = MetadataUnavailable(url="etcd://e:1", detail="connection refused")
NO_NAME = MetadataUnavailable(url="etcd://e:1", detail="name resolution failed")


class Store(MemoryStore):
    """Answers a check with each of ``faults`` in turn, then well; ``seen`` is what the home said at each check."""

    def __init__(self, home: Home, *faults: Exception) -> None:
        super().__init__()
        self.faults = list(faults)
        self.home = home
        self.seen: list[str] = []
        self.closed = False

    async def check(self) -> ServerInfo:
        self.seen.append(json.loads(self.home.waiting.read_text())["for"] if self.home.waiting.exists() else "")
        if self.faults:
            raise self.faults.pop(0)
        return await super().check()

    async def close(self) -> None:
        self.closed = True
        await super().close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", Backoff(0.0, 0.0))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.resolve(tmp_path / "home", {})
    home.create()
    return home


async def wait(home: Home, store: Store, patience: float | None, host: str = "127.0.0.1") -> None:
    await asyncio.wait_for(until_ready(home, NodeOptions("n", host=host), store, patience), WAIT)


async def test_a_server_that_answers_is_not_waited_for(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(home)
    await wait(home, store, None)
    assert (store.seen, store.closed, caplog.text) == ([""], False, "")


async def test_one_that_comes_late_is_waited_for_and_said(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(home, DOWN, DOWN, NO_NAME)
    await wait(home, store, None)
    assert store.seen == ["", str(DOWN), str(DOWN), str(NO_NAME)]
    assert caplog.text.count("waiting: metadata server etcd://e:1 does not answer: connection refused") == 1
    assert not home.waiting.exists()
    assert not store.closed


async def test_without_patience_the_first_fault_ends_it(home: Home) -> None:
    store = Store(home, DOWN)
    with pytest.raises(MetadataUnavailable):
        await wait(home, store, 0.0)
    assert store.closed
    assert not home.waiting.exists()


async def test_what_waiting_does_not_mend_ends_it(home: Home) -> None:
    store = Store(home, DOWN, MetadataRefused(url="etcd://e:1", detail="wrong password"))
    with pytest.raises(MetadataRefused):
        await wait(home, store, None)
    assert store.closed


async def test_an_address_that_comes_late_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [NoSuchAddress(address="ib0", detail="not yet")] * 2

    def address_of(host: str) -> str:
        if missing:
            raise missing.pop()
        return "127.0.0.1" if host == "ib0" else host

    monkeypatch.setattr(module, "address_of", address_of)
    store = Store(home)
    await wait(home, store, None, "ib0")
    assert store.seen == ["cannot listen on ib0: not yet"], "etcd is asked once there is an address"


async def test_an_address_that_never_comes_ends_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESS_SECONDS", 0.0)
    with pytest.raises(NoSuchAddress):
        await wait(home, Store(home), None, "198.51.100.0/24")


async def test_a_wait_can_be_broken_off(home: Home) -> None:
    store = Store(home, *[DOWN] * 100_000)
    waiting = asyncio.ensure_future(until_ready(home, NodeOptions("n"), store, None))
    while not store.seen:  # noqa: ASYNC110 - the store tells nobody
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert store.closed
    assert not home.waiting.exists()
