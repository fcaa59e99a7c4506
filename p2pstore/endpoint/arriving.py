"""A range of a file that is brought from the hub, for a client that reads it while it comes.

What this node is reading is given out as it comes, and what is here of other nodes' when its chunks were compared with
their hashes. Until the whole file is proven its last byte is kept back, so that nobody has the whole of one that is not
right.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple

from engine.files.system import system
from p2pstore.errors import NoLivePeer, StorageError
from p2pstore.hub.dripping import dripping
from p2pstore.hub.reading import Reading
from p2pstore.hub.repos import NotYet
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import Manifest
from p2pstore.origins.coming import Coming
from p2pstore.origins.gathering import Gathering
from p2pstore.origins.joining import opened, verified

READ_BYTES = 1 << 20
"""Given out at once of what grows."""

LOOK_SECONDS = 0.5
"""Before it is looked again whether somebody has the whole file, or there is more of it."""

READ_ELSEWHERE_SECONDS = 20
"""After which a client is to come again that waits for what another node is reading; it does so five times."""

LOOKS_SECONDS = 6.0
"""For which it waits before that."""

Whole = Callable[[int, int], Awaitable[Reading | None]]
"""A reader of a range of the whole file, if somebody has it."""


class _Part(NamedTuple):
    """Bytes of the file from ``offset`` on, which lie at the beginning of an open file; ``stop`` is where they end."""

    descriptor: int
    offset: int
    stop: int
    manifest: Manifest | None
    """Of what is whole; None of what grows."""


class Arriving:
    """One reader. Close it in the end."""

    def __init__(
        self, gathering: Gathering, name: str, size: int, bringing: asyncio.Task[None], whole: Whole, wanted: range
    ) -> None:
        """``name`` is what the whole is called; ``bringing`` brings it, or waits for who does, whoever reads.

        ``wanted`` are the offsets of the bytes that are read.
        """
        self._gathering = gathering
        self._name = name
        self._size = size
        self._bringing = bringing
        self._whole = whole
        self._begin, self._end = wanted.start, wanted.stop
        self._coming: Coming | None = None

    async def first(self) -> None:
        """Wait for the first byte. Raises what ends the bringing, and ``NotYet`` while another node reads it."""
        found = await self._there(self._begin, LOOKS_SECONDS)
        if isinstance(found, _Part):
            os.close(found.descriptor)

    def pieces(self) -> AsyncGenerator[memoryview, None]:
        """The bytes, in order. Raises as ``first``."""
        return dripping(self._pieces())

    def close(self) -> None:
        """Read no more."""
        if self._coming is not None:
            self._coming.left(self)

    async def _pieces(self) -> AsyncGenerator[memoryview, None]:
        at = self._begin
        while at < self._end:
            found = await self._there(at)
            if isinstance(found, Reading):
                async with aclosing(found.pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            try:
                piece = await asyncio.to_thread(_read, found, at)
            finally:
                os.close(found.descriptor)
            yield piece
            at += len(piece)

    async def _there(self, at: int, patience: float | None = None) -> _Part | Reading:
        """Where a byte can be read, once it can."""
        loop = asyncio.get_running_loop()
        began = looked = loop.time()
        whole = await self._whole(at, self._end) if self._bringing.done() else None
        while whole is None:
            part = self._part(at)
            if part is not None:
                return part
            if self._bringing.done():
                self._bringing.result()
                whole = await self._whole(at, self._end)
                if whole is None:
                    raise NoLivePeer(name=self._name, detail="it had just come, and is gone again")
                break
            await self._changed()
            if loop.time() - looked > LOOK_SECONDS:
                looked, whole = loop.time(), await self._whole(at, self._end)
            if patience is not None and loop.time() - began > patience and self._is_read_elsewhere:
                raise NotYet("another node reads it from the hub", READ_ELSEWHERE_SECONDS)
        return whole

    @property
    def _is_read_elsewhere(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._coming is not None and now - self._coming.elsewhere < 4 * LOOK_SECONDS

    async def _changed(self) -> None:
        coming = self._coming
        if coming is not None and self._gathering.coming(self._name) is coming:
            await coming.changed(LOOK_SECONDS)
        else:
            await asyncio.wait({self._bringing}, timeout=LOOK_SECONDS / 10)

    def _part(self, at: int) -> _Part | None:
        """What is here of the section that has a byte, while the whole is being brought."""
        coming = self._gathering.coming(self._name)
        if coming is None:
            return None
        if coming is not self._coming:
            self.close()
            self._coming = coming
        coming.reads(self, at)
        section, last = coming.section_at(at), min(self._end, self._size - 1)
        growing = coming.grown(section)
        if growing is not None:
            stop = min(section.begin + growing.count, last)
            return _Part(growing.opened(), section.begin, stop, None) if stop > at else None
        digest = coming.digests.get(section.name, "")
        held = self._gathering.held(section.name, digest) if coming.plan.cut else None
        if held is None or min(section.end, last) <= at:
            return None
        try:
            return _Part(opened(held[0]), section.begin, min(section.end, last), held[1])
        except StorageError:  # the whole file has just been made of it
            return None


def _read(part: _Part, at: int) -> memoryview:
    if part.manifest is not None:
        size = part.manifest.chunk_size
        number = (at - part.offset) // size
        begin = part.offset + number * size
        return verified(part.descriptor, part.manifest, number)[at - begin : part.stop - begin]
    try:
        data = system.pread(part.descriptor, min(part.stop - at, READ_BYTES), at - part.offset)
    except OSError as error:
        raise StorageError(path="what comes from the hub", detail=words(error)) from None
    if not data:
        raise StorageError(path="what comes from the hub", detail="it became shorter")
    return memoryview(data)
