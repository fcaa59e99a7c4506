"""Windows, by themselves; and a reader of a copy that comes slowly, or breaks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.errors import SourceChanged
from p2pstore.hub import dripping
from p2pstore.hub.reading import FIRST_WINDOW_BYTES, MAX_WINDOW_BYTES, Reading, Windows
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.manifest import Chunk, Manifest
from tests.p2pstore.samples import MIB, content

WAIT = 60.0


def manifest_of(size: int, chunk_size: int = MIB) -> Manifest:
    count = -(-size // chunk_size)
    return Manifest("file", "xxh3_128", chunk_size, (FileEntry("", size, 0o644, (bytes(16),) * count),))


def test_two_windows_are_under_way_and_each_chunk_is_in_one() -> None:
    manifest = manifest_of(600 * MIB)
    windows = Windows(manifest, range(10, 600))
    wanted: list[int] = []
    now = 0.0
    for number in range(10, 600):
        now += 0.01
        for window in windows.begun_by(number, now):
            wanted += window
        assert number in wanted
        assert len(wanted) < 600
    assert wanted == list(range(10, 600))


@pytest.mark.parametrize(
    ("seconds", "bounds"), [(1e-6, (MAX_WINDOW_BYTES, MAX_WINDOW_BYTES)), (10.0, (MIB, FIRST_WINDOW_BYTES // 4))]
)
def test_a_window_is_as_long_as_a_second(seconds: float, bounds: tuple[int, int]) -> None:
    """``seconds`` for each chunk of 1 MiB."""
    windows = Windows(manifest_of(4000 * MIB), range(4000))
    last: Any = range(0)
    for number in range(4000):
        for window in windows.begun_by(number, number * seconds):
            last = window if window[-1] < 3999 else last
    assert bounds[0] <= len(last) * MIB <= bounds[1]


class Slow:
    """A copy whose chunks come when they are told to."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.manifest = manifest_of(len(data))
        self.came = {number: asyncio.Event() for number in range(self.manifest.chunks)}
        self.wanted: list[int] = []

    def there(self, chunk: int) -> bool:
        return self.came[chunk].is_set()

    async def want(self, chunks: Any) -> None:
        self.wanted += chunks

    async def arrival(self, chunk: int) -> None:
        await self.came[chunk].wait()

    async def read(self, chunk: Chunk) -> memoryview:
        assert self.there(chunk.number)
        return memoryview(self.data)[chunk.offset : chunk.offset + chunk.length]


def slow(data: bytes) -> Any:
    return Slow(data)


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 3 * MIB + 7), (5, 6), (MIB - 1, MIB + 1), (MIB, 2 * MIB), (10, 3 * MIB)]
)
async def test_a_range(begin: int, end: int) -> None:
    data = content(3 * MIB + 7)
    copy = slow(data)
    for event in copy.came.values():
        event.set()
    reading = Reading(copy, 0, begin, end)
    await reading.first()
    got = b"".join([bytes(piece) async for piece in reading.pieces()])
    assert got == data[begin:end]


async def test_while_a_chunk_does_not_come_drops_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dripping, "DROP_SECONDS", 0.01)
    data = content(2 * MIB)
    copy = slow(data)
    copy.came[0].set()
    reading = Reading(copy, 0, 0, len(data))
    await reading.first()
    got = bytearray()
    sizes = []
    async for piece in reading.pieces():
        got += piece
        sizes.append(len(piece))
        assert len(got) <= MIB or copy.came[1].is_set(), "nothing is given out before it was verified"
        if len(sizes) == 4:
            copy.came[1].set()
    assert bytes(got) == data
    assert sizes[1:4] == [dripping.DROP_BYTES] * 3


async def test_what_hinders_it_is_raised() -> None:
    copy = slow(content(2 * MIB))
    copy.came[0].set()
    reading = Reading(copy, 0, 0, 2 * MIB)
    await reading.first()

    async def arrival(chunk: int) -> None:
        raise SourceChanged(path="x", detail="gone")

    async def read() -> None:
        async for piece in reading.pieces():
            assert piece

    copy.arrival = arrival
    with pytest.raises(SourceChanged):
        await asyncio.wait_for(read(), WAIT)


async def test_a_reader_that_leaves_reads_no_more() -> None:
    copy = slow(content(2 * MIB))
    copy.came[0].set()
    reading = Reading(copy, 0, 0, 2 * MIB)
    pieces = reading.pieces()
    async for _ in pieces:
        break
    await pieces.aclose()
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "Reading._read" in repr(task)]
