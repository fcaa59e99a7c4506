"""What this node has of an object that a program reads, by the hub's interface or fsspec's: brought as it is asked for.

A copy is the partial form of a get that nobody ended: what of it is verified is served to peers at once, and a journal
remembers it for the next time. Chunks come in windows, each a pull of its own; a chunk is in one window at a time.
When all of it has come, it is put in place and held like what a get brought.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from engine.errors import AddressError, SourceChanged
from p2pstore.cluster.records import ObjectRecord
from p2pstore.errors import Interrupted, MooncakeError
from p2pstore.holding.catalog import Holding
from p2pstore.holding.parts import Parts
from p2pstore.holding.replica import Replica
from p2pstore.hub.kept import place_for
from p2pstore.hub.window import Have, Window
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.objects.waiting import in_thread, to_its_end
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.resolve import ResolvedName
from p2pstore.pull.reuse import LocalChunks, copy_local
from p2pstore.pull.run import PullWork
from p2pstore.supervisor import Policy, Supervisor

log = logging.getLogger(__name__)

ABORT_SECONDS = 1.0
"""For writes under way when the node ends; those that take longer keep what they write to until they have ended."""

QUIET_SECONDS = 60.0
"""For the last write of a window that failed, before its chunks may be brought again."""

READ_AGAIN_SECONDS = 10.0
READ_PAUSE_SECONDS = 0.05
"""A chunk that is verified and cannot be read for so long is gone: meanwhile its file was perhaps just renamed."""

HELD_SECONDS = 0.05
"""Between two looks for an object that has come, and is being put in place."""


class Copy:
    """One object on this node, whole or in part. On the event loop, but for ``_landed``."""

    def __init__(
        self, parts: Parts, record: ObjectRecord, manifest: Manifest, supervisor: Supervisor, transport: str = "auto"
    ) -> None:
        self._transport = transport
        self.record = record
        self.manifest = manifest
        self._parts = parts
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[None] | None = None
        self._destination: FileDestination | None = None
        self._cancelled = threading.Event()
        self._coming: dict[int, asyncio.Future[None]] = {}
        self._windows: set[asyncio.Task[None]] = set()
        self._seeding = False  # the pull of one of them counts as this node's
        self._finishing = False
        self._fault: MooncakeError | None = None  # why what had come could not be put in place, until somebody hears
        self._local: LocalChunks
        self._have: Have
        self._replica: Replica

    @property
    def _whole(self) -> bool:
        """Whether this node holds all of it, wherever that came from."""
        return bool(self._parts.holdings.of(self.manifest.digest))

    def there(self, chunk: int) -> bool:
        """Whether a chunk can be read here."""
        if self._whole:
            return True
        replica = self._parts.holdings.replicas.get(self.manifest.digest)
        if replica is not None and replica.address and chunk in replica.have:
            return True
        return self._destination is not None and chunk in self._destination.verified

    async def want(self, chunks: Iterable[int]) -> None:
        """Begin to bring those of these chunks that are not there and not on their way. Raises as ``FileDestination``.

        What is begun goes on when whoever asked is gone.
        """
        missing = [chunk for chunk in chunks if not self.there(chunk)]
        if not missing:
            return
        if self._destination is None:
            await self._opened()
        new = [chunk for chunk in missing if chunk not in self._coming and not self.there(chunk)]
        if not new:
            return
        for chunk in new:
            self._coming[chunk] = self._loop.create_future()
        window = asyncio.create_task(self._bring(new), name=f"window of {self.record.name}")
        self._windows.add(window)
        window.add_done_callback(self._windows.discard)

    async def arrival(self, chunk: int) -> None:
        """Wait until a chunk that was wanted is there. Raises what the pull raised."""
        coming = self._coming.get(chunk)
        if coming is not None:
            await asyncio.shield(coming)

    async def held(self, progress: Callable[[int], None]) -> Path:
        """Bring all of it here: where its one file lies. ``progress`` hears of bytes that came. Raises as ``want``.

        Raises ``StorageError``, too, where it cannot be put in place.
        """
        while True:
            for holding in self._parts.holdings.of(self.manifest.digest):
                if holding.spans:
                    return Path(holding.spans[0].path)
            fault, self._fault = self._fault, None
            if fault is not None:
                raise fault
            await self.want(range(self.manifest.chunks))
            for number in range(self.manifest.chunks):
                if not self.there(number):
                    await self.arrival(number)
                    progress(self.manifest.lengths[number])
            await asyncio.sleep(HELD_SECONDS)  # it is put in place

    async def read(self, chunk: Chunk) -> memoryview:
        """A chunk that is there, compared with its hash again. Raises ``SourceChanged`` or ``StorageError``."""
        until = self._loop.time() + READ_AGAIN_SECONDS
        while (found := await asyncio.to_thread(self._read, chunk)) is None:
            if self._loop.time() > until:
                raise SourceChanged(path=self.record.name, detail=f"chunk {chunk.number} cannot be read any more")
            await asyncio.sleep(READ_PAUSE_SECONDS)
        return found

    def _read(self, chunk: Chunk) -> memoryview | None:
        view = memoryview(bytearray(chunk.length))
        serving = self._parts.holdings.serving
        if not serving.read(self.manifest.digest, chunk.offset, view):
            destination = self._destination
            if destination is None or chunk.number not in destination.verified:
                return None
            buffer = destination.partial_buffer(lambda _offset, _length: True)
            try:
                buffer.read_into(chunk.offset, view)
            except (AddressError, SourceChanged):
                return None
            finally:
                buffer.close()
        hashed = hasher(self.manifest.hash)()
        hashed.update(view)
        if hashed.digest() != chunk.digest:
            raise SourceChanged(path=self.record.name, detail=f"chunk {chunk.number} is not what was registered")
        return view

    async def close(self) -> None:
        """Bring nothing any more; what is verified stays for the next time."""
        self._cancelled.set()
        windows = [*self._windows, *([self._opening] if self._opening is not None else [])]
        for window in windows:
            window.cancel()
        await asyncio.gather(*windows, return_exceptions=True)
        if self._destination is not None:
            await asyncio.to_thread(self._destination.abort, ABORT_SECONDS)

    # How it is done

    async def _opened(self) -> None:
        """Wait until the partial form is there; what an earlier one left is hashed again, which may take long."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name=f"opening of {self.record.name}")
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        if self._destination is not None or self._whole:
            return
        kept, record, manifest = self._parts.options.kept, self.record, self.manifest
        path, spans = await in_thread(self._cancelled, place_for, kept, record, manifest, self._cancelled)
        if spans is not None:  # it came once, and is no longer held
            await self._parts.publisher.hold(Holding(record, "replica", path, spans), manifest)
            return
        destination = await in_thread(self._cancelled, self._make, path)
        try:
            await in_thread(self._cancelled, destination.recheck, self._cancelled)
            self._local = await in_thread(self._cancelled, LocalChunks, self._parts.holdings, self.manifest)
            self._have = Have(destination.verified)
            self._replica = await self._parts.publisher.serve_partial(destination, self.record)
        except BaseException:
            await to_its_end(asyncio.to_thread(destination.abort))
            raise
        self._destination = destination
        self._filled()  # an agent may have been killed before it was put in place

    def _make(self, path: Path) -> FileDestination:
        return FileDestination(path, self.manifest, self.record.name, cancelled=self._cancelled)

    def _landed(self, chunk: int) -> None:
        """A chunk is verified. Any thread."""
        self._replica.landed(range(chunk, chunk + 1))
        self._loop.call_soon_threadsafe(self._arrived, chunk)

    def _arrived(self, chunk: int) -> None:
        coming = self._coming.pop(chunk, None)
        if coming is not None and not coming.done():
            coming.set_result(None)

    async def _bring(self, chunks: Sequence[int]) -> None:
        """One window, to its end. Who waits for its chunks hears of its failure."""
        assert self._destination is not None  # noqa: S101 - it was opened
        fault: BaseException = Interrupted(detail="the node is ending")
        work: PullWork | None = None
        first = not self._seeding
        self._seeding = True
        try:
            seeds = first or await self._others_get()
            window = await asyncio.to_thread(Window, self._destination, chunks, self._have, self._landed)
            if self._local:
                await in_thread(
                    self._cancelled, copy_local, self._parts.holdings, window, self._cancelled, _nothing, self._local
                )
            if not window.verified.full:
                resolved = ResolvedName(self.record, (), watched=True)
                work = PullWork(self._parts, resolved, self.record.name, self._transport, _note)
                await work.run(window, _nobody, seeds=seeds)
        except MooncakeError as error:
            log.info("%s, for a program that reads it: %s", self.record.name, error)
            fault = error
        except Exception as error:
            log.exception("a window of %s", self.record.name)
            fault = MooncakeError(detail=repr(error))
        finally:
            if first:
                self._seeding = False
            await self._end_window(chunks, work, fault)
        self._filled()

    def _filled(self) -> None:
        """If all of it is here, put it in place."""
        if self._destination is not None and self._destination.verified.full and not self._finishing:
            self._finishing, self._fault = True, None
            self._supervisor.start("finishing of what was read", "hub", self._finish, Policy.ONCE)

    async def _others_get(self) -> bool:
        """Whether other nodes get it, too; so, too, where nobody can say.

        To those each window counts as one that passes on what it gets. Among windows of this node alone that would
        have sources deal each chunk out to them, as to several nodes: a word and an answer for nothing.
        """
        try:
            holders = await self._parts.registry.replicas(self.manifest.digest)
        except MooncakeError:
            return True
        return any(node != self._parts.record.node and held.state != "complete" for node, held in holders.items())

    async def _end_window(self, chunks: Sequence[int], work: PullWork | None, fault: BaseException) -> None:
        """Nobody writes these chunks any more: they may be wanted again, where they have not come."""
        pull = getattr(work, "pull", None)
        if pull is not None and not pull.quiet.done():
            with contextlib.suppress(asyncio.TimeoutError):
                await to_its_end(asyncio.wait({asyncio.wrap_future(pull.quiet)}, timeout=QUIET_SECONDS))
        for chunk in chunks:
            coming = self._coming.pop(chunk, None)
            if coming is None or coming.done():
                continue
            if self.there(chunk):
                coming.set_result(None)
            else:
                coming.set_exception(fault)
                coming.exception()  # nobody may be waiting

    async def _finish(self) -> None:
        """All of it has come: hold it like what a get brought."""
        assert self._destination is not None  # noqa: S101 - it was filled
        destination = self._destination
        while self._windows:
            await asyncio.wait(set(self._windows))
        try:
            spans = await asyncio.to_thread(destination.finish)
            holding = Holding(self.record, "replica", destination.path, spans)
            await self._parts.publisher.hold(holding, self.manifest)
        except MooncakeError as error:
            log.warning("%s has come, and cannot be held: %s", self.record.name, error)
            self._fault = error
            await asyncio.to_thread(destination.abort)
            self._parts.publisher.drop_partial(self._replica, self.record)
        finally:
            self._destination = None
            self._finishing = False


class Copies:
    """The copies of this node, by the digests of their manifests."""

    def __init__(self, parts: Parts, supervisor: Supervisor, transport: str = "auto") -> None:
        """``transport`` is how bytes are moved; see ``TRANSPORTS``."""
        self._transport = transport
        self._parts = parts
        self._supervisor = supervisor
        self._copies: dict[str, Copy] = {}

    def of(self, record: ObjectRecord, manifest: Manifest) -> Copy:
        """The copy of an object; nothing of it is brought yet."""
        copy = self._copies.get(manifest.digest)
        if copy is None:
            copy = self._copies[manifest.digest] = Copy(
                self._parts, record, manifest, self._supervisor, self._transport
            )
        return copy

    async def close(self) -> None:
        """Close all of them."""
        await asyncio.gather(*(copy.close() for copy in self._copies.values()))
        self._copies.clear()


def _nothing(_: int) -> None:
    """Nobody is told how far it is."""


def _nobody(_: range) -> None:
    """Listeners hear of each chunk as it is verified."""


def _note(event: dict[str, object]) -> None:
    """What a get would tell its user goes to the log."""
    if event.get("event") == "note":
        log.info("%s", event.get("text"))
