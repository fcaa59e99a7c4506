"""A file that comes from the hub: read while it comes, resumed, and never whole where it is not right."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from p2pstore.errors import OriginDiffers, OriginUnavailable
from p2pstore.hub import fetch as module
from p2pstore.hub.documents import RepoFile
from p2pstore.hub.fetch import Fetch, Following
from p2pstore.hub.repos import NotYet
from tests.p2pstore.samples import MIB, content

DATA = content(3 * MIB + 5)
FILE = RepoFile("m.safetensors", len(DATA), hashlib.sha256(DATA).hexdigest(), lfs=True)
WAIT = 60.0


class Origin:
    """Sends ``data``, each time up to the next of ``ends``, where it breaks off."""

    def __init__(self, data: bytes = DATA, ends: tuple[int, ...] = ()) -> None:
        self.data = data
        self.ends = list(ends)
        self.begins: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}

    async def __call__(self, begin: int) -> AsyncGenerator[bytes, None]:
        self.begins.append(begin)
        end = self.ends.pop(0) if self.ends else len(self.data)
        for at in range(begin, end, 100_000):
            if at in self.gates:
                await self.gates[at].wait()
            yield self.data[at : min(at + 100_000, end)]
        if end < len(self.data):
            raise OriginUnavailable(origin="x", detail="it broke off")


async def read(fetch: Fetch, begin: int = 0, end: int = len(DATA)) -> bytes:
    following = Following(fetch, begin, end)
    try:
        await following.first()
        return b"".join([bytes(piece) async for piece in following.pieces()])
    finally:
        following.close()


def run(fetch: Fetch, directory: Path) -> asyncio.Task[object]:
    return asyncio.create_task(fetch.run(directory, "n", "xxh3_128"))


async def test_it_is_read_while_it_comes(tmp_path: Path) -> None:
    origin = Origin()
    origin.gates[2_000_000] = asyncio.Event()
    fetch = Fetch(FILE, "x", origin)
    running = run(fetch, tmp_path)
    assert await asyncio.wait_for(read(fetch, 0, 1_900_000), WAIT) == DATA[:1_900_000]
    assert not running.done()
    reading = [asyncio.create_task(read(fetch)), asyncio.create_task(read(fetch, 1_000_000, len(DATA) - 9))]
    origin.gates[2_000_000].set()
    incoming = await asyncio.wait_for(running, WAIT)
    assert await asyncio.wait_for(reading[0], WAIT) == DATA
    assert await asyncio.wait_for(reading[1], WAIT) == DATA[1_000_000:-9]
    path, _, manifest = incoming.finish()  # type: ignore[attr-defined]
    assert path.read_bytes() == DATA
    assert manifest.size == len(DATA)
    assert fetch._descriptor == -1
    with pytest.raises(NotYet):
        await read(fetch)


async def test_it_goes_on_where_the_origin_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRIES", module.Backoff(0.001, 0.001))
    origin = Origin(ends=(700_000, 700_000, 2_500_000))
    fetch = Fetch(FILE, "x", origin)
    incoming = await asyncio.wait_for(run(fetch, tmp_path), WAIT)
    assert origin.begins == [0, 700_000, 700_000, 2_500_000]
    assert incoming.finish()[0].read_bytes() == DATA  # type: ignore[attr-defined]


async def test_an_origin_that_stays_away_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRIES", module.Backoff(0.001, 0.001))
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    fetch = Fetch(FILE, "x", Origin(ends=(100_000,) * 1000))
    running = run(fetch, tmp_path)
    with pytest.raises(OriginUnavailable):
        await asyncio.wait_for(running, WAIT)
    with pytest.raises(OriginUnavailable):
        await read(fetch)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("data", [b"!" + DATA[1:], DATA + b"more"])
async def test_nobody_gets_the_whole_of_what_is_not_right(tmp_path: Path, data: bytes) -> None:
    fetch = Fetch(FILE, "x", Origin(data))
    running = run(fetch, tmp_path)
    got = bytearray()

    async def take() -> None:
        fetch.join()
        try:
            async for piece in fetch.pieces(0, len(DATA)):
                got.extend(piece)
        finally:
            fetch.leave()

    with pytest.raises(OriginDiffers):
        await asyncio.wait_for(take(), WAIT)
    with pytest.raises(OriginDiffers):
        await running
    assert len(got) < len(DATA)
    assert os.listdir(tmp_path) == []


async def test_it_ends_with_the_node(tmp_path: Path) -> None:
    origin = Origin()
    origin.gates[1_000_000] = asyncio.Event()
    fetch = Fetch(FILE, "x", origin)
    running = run(fetch, tmp_path)
    await asyncio.wait_for(read(fetch, 0, 10), WAIT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(Exception, match="ending"):
        await read(fetch)
    assert os.listdir(tmp_path) == []
