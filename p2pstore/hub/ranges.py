"""Ranges of an object's files, many in one call, for programs that read here and there: just their chunks are brought.

The first ranges are given out while the chunks of the next are on their way. What came stays in the node's copy, so
that it comes once, whoever reads it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from p2pstore.cluster.manifests import first_that_answers
from p2pstore.cluster.records import ObjectRecord
from p2pstore.errors import MetadataRefused, MetadataUnavailable, UsageError
from p2pstore.holding.parts import Parts
from p2pstore.hub.copies import Copies, Copy
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.reference import parse_reference
from p2pstore.pull.resolve import resolve

log = logging.getLogger(__name__)

WINDOW_BYTES = 64 << 20
"""Of chunks that are brought together; two windows are under way at a time."""

MAX_RECENT_BYTES = 128 << 20
"""Of chunks that stay in memory, verified: whoever reads on in one reads it from there."""

MAX_MANIFESTS = 64
"""Of objects that are read, so many stay known."""

Take = Callable[[memoryview], Awaitable[None]]


class FileRange(NamedTuple):
    """Bytes from ``begin`` to ``end`` of the file of that number."""

    file: int
    begin: int
    end: int


class Readers:
    """What programs read on this node. On the event loop."""

    def __init__(self, parts: Parts, copies: Copies) -> None:
        self._parts = parts
        self._copies = copies
        self._known: OrderedDict[str, tuple[ObjectRecord, Manifest]] = OrderedDict()
        self._recent: OrderedDict[tuple[str, int], memoryview] = OrderedDict()
        self._recent_bytes = 0

    async def find(self, reference: str) -> tuple[ObjectRecord, Manifest]:
        """The object that is meant by a name, or by one with a digest.

        Raises ``BadName``, as ``resolve``, and the last holder's fault. What this node holds is found without anybody.
        """
        wanted = parse_reference(reference)
        if wanted.digest in self._known:
            self._known.move_to_end(wanted.digest)
            return self._known[wanted.digest]
        mine = self._parts.holdings.named(wanted.name) if not wanted.tag else []  # nobody here knows what a tag means
        held = [h.record for h in mine if wanted.fits(h.name, h.digest)]
        controls: Sequence[tuple[str, str]] = ()
        try:
            resolved = await resolve(self._parts.registry, self._parts.client, wanted, ())
        except (MetadataUnavailable, MetadataRefused):
            if not held:
                raise
            record = held[0]
        else:
            record, controls = resolved.record, resolved.controls
        manifest = self._parts.holdings.manifest(record.manifest) or self._remembered(record.manifest)
        if manifest is None:
            manifest = await first_that_answers(self._parts.client, controls, record.manifest, log.info)
        self._known[record.manifest] = record, manifest
        self._known.move_to_end(record.manifest)
        while len(self._known) > MAX_MANIFESTS:
            self._known.popitem(last=False)
        return record, manifest

    def _remembered(self, digest: str) -> Manifest | None:
        return self._known[digest][1] if digest in self._known else None

    async def read(self, record: ObjectRecord, manifest: Manifest, ranges: Sequence[FileRange], take: Take) -> int:
        """Have ranges taken, in their order, each byte verified; how many there were.

        Raises ``UsageError`` for what is not in the object, and what hinders the rest.
        """
        pieces = [_within(manifest, each) for each in ranges]
        copy = self._copies.of(record, manifest)
        steps = _steps(manifest, pieces)
        windows = _windows(manifest, pieces)
        begun: set[int] = set()
        total = 0
        step = next(steps, None)
        coming = None if step is None else asyncio.create_task(self._coming(copy, step.chunk, windows, begun))
        try:
            while step is not None and coming is not None:
                data, now = await coming, step
                step = next(steps, None)  # comes while that is taken
                coming = None if step is None else asyncio.create_task(self._coming(copy, step.chunk, windows, begun))
                await take(data[now.low : now.high])
                total += now.high - now.low
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
        return total

    async def _coming(self, copy: Copy, number: int, windows: Iterator[list[int]], begun: set[int]) -> memoryview:
        """A chunk. The first of a window has that brought, and the one behind it."""
        if number not in begun:
            for _ in range(1 if begun else 2):
                window = next(windows, [])
                begun.update(window)
                await copy.want(window)
        return await self._chunk(copy, number)

    async def _chunk(self, copy: Copy, number: int) -> memoryview:
        """A chunk, verified, as soon as it is there."""
        key = copy.manifest.digest, number
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        while not copy.there(number):
            await copy.want([number])
            await copy.arrival(number)
        data = (await copy.read(copy.manifest.chunk(number))).toreadonly()
        if key not in self._recent:  # somebody else may have read it meanwhile
            self._recent[key] = data
            self._recent_bytes += len(data)
        while self._recent_bytes > MAX_RECENT_BYTES:
            _, gone = self._recent.popitem(last=False)
            self._recent_bytes -= len(gone)
        return data


class _Step(NamedTuple):
    """What of a chunk is taken next."""

    chunk: int
    low: int
    high: int


def _steps(manifest: Manifest, pieces: Sequence[tuple[int, int]]) -> Iterator[_Step]:
    for begin, end in pieces:
        for number in manifest.chunks_of(begin, end - begin) if begin < end else ():
            chunk = manifest.chunk(number)
            high = min(end, chunk.offset + chunk.length) - chunk.offset
            yield _Step(number, max(begin, chunk.offset) - chunk.offset, high)


def _within(manifest: Manifest, wanted: FileRange) -> tuple[int, int]:
    """Where a range begins and ends in the object. Raises ``UsageError``."""
    sizes = manifest.columns.sizes
    if not 0 <= wanted.file < len(sizes) or not 0 <= wanted.begin <= wanted.end <= sizes[wanted.file]:
        raise UsageError(detail=f"the object has no bytes {wanted.begin} to {wanted.end} of a file {wanted.file}")
    offset = manifest.file_offsets[wanted.file]
    return offset + wanted.begin, offset + wanted.end


def _windows(manifest: Manifest, pieces: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """The chunks that have something of the pieces, each once, in the order of their use, as many as come together."""
    seen: set[int] = set()
    window: list[int] = []
    size = 0
    for begin, end in pieces:
        for number in manifest.chunks_of(begin, end - begin) if begin < end else ():
            if number in seen:
                continue
            seen.add(number)
            if window and size + manifest.lengths[number] > WINDOW_BYTES:
                yield window
                window, size = [], 0
            window.append(number)
            size += manifest.lengths[number]
    if window:
        yield window
