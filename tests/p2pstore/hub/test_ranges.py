"""Ranges of files, from real nodes: right, in their order, and of each chunk that they touch just one coming."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import p2pstore.hub.ranges
from p2pstore.errors import BadName, ObjectNotFound, UsageError
from p2pstore.hub.copies import Copies
from p2pstore.hub.ranges import FileRange, Readers
from p2pstore.node import Node
from tests.p2pstore.nodes import FILES, Start, register, root, start
from tests.p2pstore.samples import MIB

__all__ = ["root", "start"]

WAIT = 60.0
DATA = [FILES[path] for path in sorted(FILES)]


async def read(readers: Readers, name: str, *ranges: tuple[int, int, int]) -> bytes:
    record, manifest = await readers.find(name)
    found = bytearray()

    async def take(data: memoryview) -> None:
        found.extend(data)

    wanted = [FileRange(*each) for each in ranges]
    total = await asyncio.wait_for(readers.read(record, manifest, wanted, take), WAIT)
    assert total == len(found)
    return bytes(found)


async def pair(start: Start, root: Path) -> tuple[Node, Node]:
    one, two = await start("one"), await start("two")
    await register(one, root, chunk_size=MIB)
    return one, two


@pytest.mark.parametrize("window", [1, 64 << 20])
async def test_ranges_in_their_order(start: Start, root: Path, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2pstore.hub.ranges, "WINDOW_BYTES", window)
    monkeypatch.setattr(p2pstore.hub.ranges, "MAX_RECENT_BYTES", 2 * window)
    _, two = await pair(start, root)
    copies = Copies(two.parts, two.supervisor)
    readers = Readers(two.parts, copies)
    ranges = [(2, 3 * MIB, 3 * MIB + 1), (2, 5, MIB + 5), (0, 0, 2), (1, 0, 0), (2, 7, 7), (2, 4, 6), (3, 9, MIB)]
    expected = b"".join(DATA[number][begin:end] for number, begin, end in ranges)
    assert await read(readers, "n", *ranges) == expected
    assert await read(readers, "n", *reversed(ranges)) == b"".join(DATA[n][b:e] for n, b, e in reversed(ranges))
    assert await read(readers, "n") == b""
    await copies.close()


async def test_just_their_chunks_come(start: Start, root: Path) -> None:
    one, two = await pair(start, root)
    copies = Copies(two.parts, two.supervisor, "tcp")
    readers = Readers(two.parts, copies)
    assert await read(readers, "n", (2, MIB + 5, MIB + 6)) == DATA[2][MIB + 5 : MIB + 6]
    first = one.engine.bytes_sent
    assert MIB <= first <= 2 * MIB, "one chunk, which a busy machine may ask for again"
    found = await asyncio.gather(*(read(readers, "n", (2, 0, 3 * MIB)) for _ in range(4)))
    assert found == [DATA[2][: 3 * MIB]] * 4
    assert 2 * MIB <= one.engine.bytes_sent - first < 4 * 2 * MIB, "what came before, and what others bring, comes once"
    (mine,) = [each for each in (await one.info("n"))["replicas"] if each["node"] == "two"]
    assert (mine["state"], mine["chunks"]) == ("partial", 3)
    await copies.close()


async def test_what_is_held_here_needs_nobody(start: Start, root: Path) -> None:
    one, _ = await pair(start, root)
    copies = Copies(one.parts, one.supervisor)
    readers = Readers(one.parts, copies)
    assert await read(readers, "n", (3, 0, MIB)) == DATA[3]
    record, manifest = await readers.find("n")
    found = await readers.find(f"n@sha256:{manifest.digest}")
    assert found == (record, manifest)
    assert await readers.find(f"n@{manifest.digest[:9]}") == found
    await copies.close()


async def test_what_is_not_there(start: Start, root: Path) -> None:
    _, two = await pair(start, root)
    copies = Copies(two.parts, two.supervisor)
    readers = Readers(two.parts, copies)
    with pytest.raises(ObjectNotFound):
        await readers.find("other")
    with pytest.raises(BadName):
        await readers.find("a//b")
    for wanted in [(4, 0, 0), (-1, 0, 0), (0, 0, 3), (0, 2, 1), (0, -1, 1)]:
        with pytest.raises(UsageError):
            await read(readers, "n", wanted)
    await copies.close()
