"""A listener that changed to lines is told news at once, heard, kept awake, and cut off where it is too slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from p2pstore.cluster.line_connection import LineConnection, upgrade
from p2pstore.cluster.news_lines import NewsReader
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.words import to_line
from p2pstore.peers import conversation as module
from p2pstore.swarm.events import Declined
from tests.p2pstore.peers.owner import Owner, serving
from tests.p2pstore.samples import MIB, content, manifest_of

DATA = content(3 * MIB)
MANIFEST = manifest_of({"": DATA}, MIB)
WAIT = 60.0


class Getter:
    """One who listens, as bytes."""

    def __init__(self) -> None:
        self.data = b""
        self.changed = asyncio.Event()
        self.connection = LineConnection(self.hear)

    def hear(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.split(b"\n")[:-1]]

    async def until(self, key: str, count: int = 1) -> list[Any]:
        async def wait() -> None:
            while sum(key in line for line in self.lines) < count:
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), WAIT)
        return [line[key] for line in self.lines if key in line]


@pytest.fixture
async def owner() -> AsyncIterator[tuple[Owner, str]]:
    async with serving() as (made, control):
        await made.hold("n", MANIFEST, DATA)
        yield made, control


async def follow(control: str, grants: int = 1) -> Getter:
    host, _, port = control.rpartition(":")
    path = f"/v1/replicas/{MANIFEST.digest}?seeds=1&grants={grants}"
    found = await upgrade(host, int(port), path, {"Host": control}, connect=WAIT, patience=WAIT)
    assert found is not None
    getter = Getter()
    getter.connection.begin(*found)
    await getter.until("address")
    return getter


async def test_grants_and_what_is_said_to_them(owner: tuple[Owner, str]) -> None:
    one, other = await follow(owner[1]), await follow(owner[1])
    numbers = await one.until("grant")
    assert (await one.until("shared"))[-1] is True
    one.connection.write(to_line(Declined("", numbers[0], 0, full=False)) + b"\n")
    other.connection.close()
    one.connection.close()


async def test_who_takes_no_grants_gets_none(owner: tuple[Owner, str]) -> None:
    one, other = await follow(owner[1], grants=0), await follow(owner[1])
    await other.until("grant")
    assert not any("grant" in line for line in one.lines)
    one.connection.close()
    other.connection.close()


async def test_a_withdrawal_is_told_and_ends_it(owner: tuple[Owner, str]) -> None:
    getter = await follow(owner[1])
    owner[0].holdings.replicas[MANIFEST.digest].withdrawn("it was changed")
    assert await getter.until("gone") == [True]
    await asyncio.wait_for(getter.connection.over, WAIT)
    assert list(NewsReader("c:1", 3).read(getter.data.split(b"\n")[0] + b"\n"))


async def test_silence_is_broken(owner: tuple[Owner, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    getter = await follow(owner[1])
    while getter.lines.count({}) < 2:
        getter.changed.clear()
        await asyncio.wait_for(getter.changed.wait(), WAIT)
    getter.connection.close()


@pytest.mark.parametrize("said", [b"nonsense\n", b"x" * 1000, b'{"done":-1,"under_way":0}\n'])
async def test_what_is_no_word_ends_it(owner: tuple[Owner, str], said: bytes) -> None:
    getter = await follow(owner[1])
    getter.connection.write(said)
    await asyncio.wait_for(getter.connection.over, WAIT)
    assert len(owner[0].holdings.replicas[MANIFEST.digest]._listeners) == 0


async def test_who_takes_nothing_is_cut_off(owner: tuple[Owner, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNTAKEN_BYTES", 1000)
    getter = await follow(owner[1])
    getter.connection._behind = lambda: True  # from now on it reads nothing
    replica = owner[0].holdings.replicas[MANIFEST.digest]

    async def much() -> None:
        while replica._listeners:
            for listener in replica._listeners.values():
                for _ in range(10_000):
                    listener.put((range(3), range(3)))
            await asyncio.sleep(0)

    await asyncio.wait_for(much(), WAIT)
    getter.connection.close()


async def test_the_server_closes_under_a_conversation() -> None:
    async with serving() as (made, control):
        await made.hold("n", MANIFEST, DATA)
        getter = await follow(control)
    await asyncio.wait_for(getter.connection.over, WAIT)


async def test_it_counts_as_listening_until_the_listener_leaves(owner: tuple[Owner, str]) -> None:
    getter = await follow(owner[1])
    listens = owner[0].counts.listens
    assert (listens.started, listens.ended) == (1, 0)
    getter.connection.close()
    client = PeerClient(None)
    try:
        while not listens.ended:
            await client.key(owner[1])
    finally:
        await client.close()
