"""The checker: reads again what this node serves when there is reason to doubt it, and gives up what is wrong.

There are two reasons. A file was *touched*: something of it changed that a write changes, too, though its size and its
time of writing are what they were. ``touch -r`` after a write leaves that; so does a new mode. And a receiver
*complains* of a chunk whose bytes were wrong where they arrived: either they are wrong here, or something on the way
changed them.

Receivers may lie, so that complaints cost little: one chunk is read at a time, each once a while, few a minute.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from engine.files.stamps import STAMP_BYTES
from engine.memory.file_spans import FileSpan, FileSpans
from p2pstore.errors import Interrupted, MooncakeError, StorageError
from p2pstore.holding.bad_chunks import WRONG_HASH, chunk_fault
from p2pstore.holding.catalog import Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.replica import Replica
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import changed, reading_fault, stamp_now
from p2pstore.objects.tasks import READ_BYTES
from p2pstore.objects.waiting import in_thread

log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0
"""A chunk that was complained of is not read again for so long."""

CHUNKS_A_MINUTE = 32
"""Chunks that are read for complaints in a minute, whoever complains: of 64 MiB, a thirtieth of what a disk reads."""

MAX_REMEMBERED = 1024
"""Chunks that were complained of which are remembered."""

MAX_TOUCHED = 10_000
"""Holdings that wait to be read again; a look at their files finds further ones later."""


class ComplaintLimiter:
    """Which complaints that come to look into. Pure; the time is the caller's, in seconds, and never goes back."""

    def __init__(self) -> None:
        self._lately: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._times: deque[float] = deque()

    def take(self, digest: str, chunk: int, now: float) -> bool:
        """Whether to read a chunk of that content now."""
        while self._lately and now - next(iter(self._lately.values())) >= AGAIN_SECONDS:
            self._lately.popitem(last=False)
        while self._times and now - self._times[0] >= 60.0:
            self._times.popleft()
        if (digest, chunk) in self._lately or len(self._times) >= CHUNKS_A_MINUTE:
            return False
        if len(self._lately) >= MAX_REMEMBERED:
            return False
        self._lately[digest, chunk] = now
        self._times.append(now)
        return True


class Checker:
    """Reads again what is doubted. Its methods run on the event loop, the reading in threads."""

    def __init__(
        self,
        holdings: Holdings,
        give_up: Callable[[Holding, str], Awaitable[None]],
        drop_partial: Callable[[Replica], None],
    ) -> None:
        """``give_up`` serves a holding no more and says why; ``drop_partial`` a replica that is not whole."""
        self._holdings = holdings
        self._give_up = give_up
        self._drop_partial = drop_partial
        self._complaints = ComplaintLimiter()
        self._reading = asyncio.Lock()
        self._touched: list[Holding] = []
        self._wake = asyncio.Event()

    def touched(self, holding: Holding) -> None:
        """A file of it was touched."""
        if holding not in self._touched and len(self._touched) < MAX_TOUCHED:
            self._touched.append(holding)
            self._wake.set()

    async def run(self) -> None:
        """Read again what was touched, one after the other, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._touched:
                try:
                    await self._check(self._touched[0])
                finally:
                    self._touched.pop(0)

    async def _check(self, holding: Holding) -> None:
        """Read the files of a holding that were touched: it gets new stamps, or is given up."""
        manifest = self._holdings.manifest(holding.digest)
        if manifest is None or holding not in self._holdings:
            return
        cancelled = threading.Event()
        fault, times = await in_thread(cancelled, _read_touched, holding, manifest, cancelled)
        if holding not in self._holdings:
            return
        if fault:
            log.warning("%s is withdrawn: %s: %s", holding.name, holding.place, fault)
            await self._give_up(holding, fault)
        elif times:
            log.info("%s: its files were touched, and hold what they held", holding.place)
            kept = replace(holding, spans=await asyncio.to_thread(_with_times, holding.spans, times))
            try:
                await self._holdings.put([(kept, manifest)])
            except StorageError as error:
                log.warning("%s is read again at the next look: %s", holding.place, error)

    async def complaint(self, digest: str, chunk: int) -> bool | None:
        """A receiver got wrong bytes for a chunk: whether they are wrong here; None when that was not looked at.

        What is wrong is served no more when this returns.
        """
        replica = self._holdings.replicas.get(digest)
        now = asyncio.get_running_loop().time()
        if replica is None or self._reading.locked() or chunk not in replica.have:
            return None
        if not self._complaints.take(digest, chunk, now):
            return None
        async with self._reading:
            cancelled = threading.Event()
            wrong = await in_thread(cancelled, self._is_wrong, replica.manifest, chunk, cancelled)
        if wrong:
            await self._withdraw(replica, chunk)
        elif wrong is False:
            log.info("a receiver complained of chunk %d of %s, which is right here", chunk, digest[:12])
        return wrong

    async def _withdraw(self, replica: Replica, chunk: int) -> None:
        holding = self._holdings.serving.served(replica.manifest.digest)
        if holding is None:
            self._drop_partial(replica)
            return
        text = "%s is withdrawn: %s: chunk %d is not what was registered, as a receiver found"
        log.warning(text, holding.name, holding.place, chunk)
        await self._give_up(holding, f"its chunk {chunk} is not what was registered")

    def _is_wrong(self, manifest: Manifest, number: int, cancelled: threading.Event) -> bool | None:
        """Whether a chunk differs from its digest where it is served from; None when it cannot be read there."""
        chunk = manifest.chunk(number)
        hashed = hasher(manifest.hash)()
        buffer = memoryview(bytearray(READ_BYTES))
        at = chunk.offset
        try:
            while at < chunk.offset + chunk.length:
                piece = buffer[: min(READ_BYTES, chunk.offset + chunk.length - at)]
                if cancelled.is_set() or not self._holdings.serving.read(manifest.digest, at, piece):
                    return None
                hashed.update(piece)
                at += len(piece)
        except MooncakeError as error:  # what cannot be read is withdrawn by whoever watches the sources
            log.warning("%s", error)
            return None
        return bool(hashed.digest() != chunk.digest)


def _read_touched(holding: Holding, manifest: Manifest, cancelled: threading.Event) -> tuple[str, dict[int, int]]:
    """What is wrong with the files that were touched, empty where nothing is; else when each was, by its number.

    A file that cannot be looked at or read now is left out, so that the next look finds it again.
    """
    times: dict[int, int] = {}
    buffer = memoryview(bytearray(READ_BYTES))
    for number in changed(holding.spans):
        span = holding.spans[number]
        try:
            now = stamp_now(span.path)
        except OSError:
            continue
        if span.stamp is None or not span.stamp.fits(now) or not span.stamp.touched(now):
            continue
        fault, readable = _read(span.path, _chunks_of(number, manifest), manifest, buffer, cancelled)
        if fault:
            return f"{span.path}: {fault}", {}
        if readable:
            times[number] = now.ctime_ns
    return "", times


def _chunks_of(number: int, manifest: Manifest) -> range:
    """The chunks of one file."""
    sizes = manifest.columns.sizes
    return manifest.chunks_of(sum(sizes[:number]), sizes[number]) if sizes[number] else range(0)


def _with_times(spans: Sequence[FileSpan], times: Mapping[int, int]) -> Sequence[FileSpan]:
    """The spans, with these times at which their files were touched last."""
    if not isinstance(spans, FileSpans):
        return tuple(_with_time(span, times.get(number)) for number, span in enumerate(spans))
    stamps = bytearray(spans.stamps)
    for number, time in times.items():
        stamp = _with_time(spans[number], time).stamp
        if stamp is not None:
            stamps[number * STAMP_BYTES : (number + 1) * STAMP_BYTES] = stamp.packed()
    return FileSpans(spans.root, spans.paths, spans.sizes, bytes(stamps))


def _with_time(span: FileSpan, time: int | None) -> FileSpan:
    if time is None or span.stamp is None:
        return span
    return replace(span, stamp=replace(span.stamp, ctime_ns=time))


def _read(
    path: str, chunks: range, manifest: Manifest, buffer: memoryview, cancelled: threading.Event
) -> tuple[str, bool]:
    """What is wrong with a file, and whether it could be read at all."""
    make = hasher(manifest.hash)
    for number in chunks:
        if cancelled.is_set():
            raise Interrupted(detail=f"reading {path} again was cancelled")
        chunk = manifest.chunk(number)
        reason = chunk_fault(path, chunk, make, buffer)
        if reason and reason != WRONG_HASH:
            reason = reading_fault(path, chunk.file_offset)
            if not reason:
                return "", False
        if reason:
            return f"chunk {number}: {reason}", True
    return "", True
