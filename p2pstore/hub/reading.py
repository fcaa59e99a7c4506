"""A range of a file, verified chunk by chunk, for somebody who reads it in order: what comes next is on its way.

Nothing is given away before its chunk was compared with its hash. While the next chunk does not come, the last bytes
of the one before are given out in drops (``dripping``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from p2pstore.hub.copies import Copy
from p2pstore.hub.dripping import dripping
from p2pstore.objects.manifest import Manifest

FIRST_WINDOW_BYTES = 64 << 20
MAX_WINDOW_BYTES = 512 << 20
"""Of chunks that are wanted together, at first, and at most: the order in which they come is not the file's."""

WINDOW_SECONDS = 1.0
"""What a window is to take, by what the last one took: a client that reads in order waits for up to so long."""


class Reading:
    """One reader of the bytes from ``begin`` to ``end`` of a file, which has at least one."""

    def __init__(self, copy: Copy, file: int, begin: int, end: int) -> None:
        offset = copy.manifest.file_offsets[file]
        self._copy = copy
        self._begin, self._end = offset + begin, offset + end
        self._chunks = copy.manifest.chunks_of(self._begin, self._end - self._begin)
        self._windows = Windows(copy.manifest, self._chunks)

    async def first(self) -> None:
        """Wait for the first chunk. Raises what hinders it."""
        await self._look_ahead(self._chunks.start)
        await self._copy.arrival(self._chunks.start)

    def pieces(self) -> AsyncGenerator[memoryview, None]:
        """The bytes, in order. Raises what hinders the rest."""
        return dripping(self._pieces())

    async def _pieces(self) -> AsyncGenerator[memoryview, None]:
        for number in self._chunks:
            yield self._within(number, await self._read(number))

    def close(self) -> None:
        """Read no more."""

    def _within(self, number: int, whole: memoryview) -> memoryview:
        chunk = self._copy.manifest.chunk(number)
        low = max(self._begin, chunk.offset) - chunk.offset
        high = min(self._end, chunk.offset + chunk.length) - chunk.offset
        return whole[low:high]

    async def _read(self, number: int) -> memoryview:
        await self._look_ahead(number)
        while not self._copy.there(number):
            await self._copy.want([number])
            await self._copy.arrival(number)
        return await self._copy.read(self._copy.manifest.chunk(number))

    async def _look_ahead(self, number: int) -> None:
        """Want the window of a chunk that is read, and the next: two are under way at a time."""
        now = asyncio.get_running_loop().time()
        for window in self._windows.begun_by(number, now):
            await self._copy.want(window)


class Windows:
    """Which chunks are wanted together. Pure; the time is the caller's."""

    def __init__(self, manifest: Manifest, chunks: range) -> None:
        self._lengths = manifest.lengths
        self._chunks = chunks
        self._next = chunks.start
        self._open: list[tuple[range, float, int]] = []  # those under way: when each began, and its bytes
        self._bytes = FIRST_WINDOW_BYTES

    def begun_by(self, number: int, now: float) -> Iterator[Sequence[int]]:
        """The windows that are begun when a chunk is about to be read."""
        while self._open and number >= self._open[0][0].stop:
            _, began, size = self._open.pop(0)
            self._took(size, now - began)
        while len(self._open) < 2 and self._next < self._chunks.stop:
            window, size = self._cut()
            self._open.append((window, now, size))
            yield window

    def _took(self, size: int, seconds: float) -> None:
        """A window was read to its end so long after it was begun, with another beside it."""
        if size >= self._bytes // 2:
            wanted = int(size / max(seconds, 0.001) * WINDOW_SECONDS)
            self._bytes = max(FIRST_WINDOW_BYTES // 4, min(wanted, 2 * self._bytes, MAX_WINDOW_BYTES))

    def _cut(self) -> tuple[range, int]:
        first, size = self._next, 0
        while self._next < self._chunks.stop and (self._next == first or size < self._bytes):
            size += self._lengths[self._next]
            self._next += 1
        return range(first, self._next), size
