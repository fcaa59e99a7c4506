"""Register: from a path, many paths or memory to holdings that are served and known: scan, hash, publish, hold.

Nothing is copied. Of many paths each costs its hashing; the metadata store and the disk are written in batches. A path
that cannot be registered is reported, with its error, and holds up none of the others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.net.within import within
from p2pstore.cluster.manifests import first_that_answers
from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.registry import PUBLISHED_AT_ONCE, registered
from p2pstore.cluster.tags import tag_version
from p2pstore.errors import MooncakeError, ObjectExists, UsageError, to_wire
from p2pstore.holding.catalog import Holding
from p2pstore.holding.content import Content, FileContent, How, IncomingContent, MemoryContent, Note, some
from p2pstore.holding.incoming import Incoming
from p2pstore.holding.parts import Parts
from p2pstore.holding.publisher import NewObject
from p2pstore.objects.difference import cut_otherwise, difference, same_bytes
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Buffers, named, release, views_of
from p2pstore.objects.names import check_object_name
from p2pstore.objects.reference import check_tag
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.objects.tasks import run_tasks
from p2pstore.objects.tree_hash import RUN_BYTES
from p2pstore.objects.waiting import in_thread, to_its_end

HASHED_AT_ONCE = PUBLISHED_AT_ONCE
"""Objects that are hashed before they are published together."""


MAX_COMPARED = 16
"""Names of a batch that are taken whose content is compared with what is registered."""

COMPARE_SECONDS = 10.0
"""For a holder of the other content to send its manifest."""


@dataclass
class _Wanted:
    """One source and the name that it is to have; what has come of it so far, or its fault."""

    name: str
    source: Content
    scanned: bool = False
    manifest: Manifest | None = None
    record: ObjectRecord | None = None
    fault: MooncakeError | None = None
    tags: list[dict[str, str]] = field(default_factory=list)

    def attempt(self, step: Callable[[], None], how: How) -> None:
        """Go a step further, unless there is a fault, or a cancel."""
        if self.fault is None and not how.cancelled.is_set():
            try:
                step()
            except MooncakeError as error:
                self.fault = error

    def scan(self, how: How) -> None:
        """Check the name and look at the source."""
        check_object_name(self.name)
        self.source.scan(how)
        self.scanned = True

    def hash(self, how: How, threads: int) -> None:
        """Make the manifest."""
        manifest = self.source.hash(how, threads)
        how.steps.begin("describing")
        self.manifest = manifest.prepare()

    def answer(self) -> dict[str, Any]:
        """What a register answers of it. Raises its fault."""
        if self.fault is not None:
            raise self.fault
        assert self.record is not None and self.manifest is not None  # noqa: S101, PT018 - it is registered
        return {**registered(self.record, self.manifest), "tags": self.tags}


async def register(
    parts: Parts,
    path: Path,
    name: str,
    *,
    hash_name: str,
    chunk_size: int = 0,
    force: bool = False,
    tags: Sequence[str] = (),
    selection: Selection | None = None,
    steps: Steps | None = None,
    note: Note | None = None,
) -> dict[str, Any]:
    """Hash the file or directory at ``path``, or what ``selection`` takes of it, and serve it under ``name``.

    ``tags`` lead to it then. ``steps`` hears what is being done. Raises ``BadName``, ``BadTag``, ``PathNotFound``,
    ``BadSource``, ``SourceChanged``, ``StorageError``, ``ObjectExists`` or ``MetadataUnavailable``.
    """
    private = parts.options.private
    how = How(hash_name, chunk_size, force, _tags(tags), steps or Steps(), selection or Selection(), note, private)
    return await _register_one(parts, name, FileContent(path), how)


async def register_incoming(
    parts: Parts, incoming: Incoming, name: str, *, force: bool, steps: Steps, tags: Sequence[str] = ()
) -> dict[str, Any]:
    """Serve a stream that has come to its end under ``name``; of one that cannot be nothing is left.

    When this is cancelled, it may be held.

    Raises as ``register``.
    """
    check_object_name(name)
    steps.begin("finishing")
    finishing = asyncio.to_thread(incoming.finish)
    try:
        root, span, manifest = await to_its_end(finishing)
        how = How(manifest.hash, manifest.chunk_size, force, _tags(tags), steps)
        answer = await _register_one(parts, name, IncomingContent(root, span, manifest), how)
    except BaseException:
        if not parts.holdings.lying_at(incoming.path):  # a cancel may come when it is held
            await to_its_end(asyncio.to_thread(incoming.abort))
        raise
    return {**answer, "path": str(root)}


async def register_memory(
    parts: Parts,
    name: str,
    buffers: Buffers,
    *,
    hash_name: str,
    chunk_size: int,
    force: bool,
    tags: Sequence[str] = (),
) -> dict[str, Any]:
    """Hash and serve buffers in place under ``name``. Raises ``BadName``, ``UsageError``, ``ObjectExists``.

    Raises ``GpuFailed``, too. When it raises, or was cancelled, nothing holds the buffers any more.
    """
    check_object_name(name)
    views = views_of(named(buffers))
    try:
        return await _register_one(parts, name, MemoryContent(views), How(hash_name, chunk_size, force, _tags(tags)))
    except BaseException:
        release(views.values())
        raise


async def register_many(
    parts: Parts,
    items: Sequence[tuple[Path, str]],
    *,
    hash_name: str,
    chunk_size: int = 0,
    force: bool = False,
    tags: Sequence[str] = (),
    selection: Selection | None = None,
    progress: Callable[[int, int], None] | None = None,
    note: Note | None = None,
) -> dict[str, Any]:
    """Hash and serve each (path, name). Several share a write to the metadata store.

    ``progress(done, total)`` is called in objects. Returns ``objects`` as a register describes them, and ``failed``:
    path, name and error of each that could not be. Raises ``UsageError`` for a name that comes twice,
    ``MetadataUnavailable`` and ``StorageError``; what was registered before stays so.
    """
    began = time.monotonic()
    names = {name for _, name in items}
    if len(names) != len(items):
        raise UsageError(detail="a name is given to two paths")
    objects: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    how = How(
        hash_name,
        chunk_size,
        force,
        _tags(tags),
        selection=selection or Selection(),
        note=note,
        private=parts.options.private,
    )
    for first in range(0, len(items), HASHED_AT_ONCE):
        paths = items[first : first + HASHED_AT_ONCE]
        batch = [_Wanted(name, FileContent(path)) for path, name in paths]
        await _register(parts, batch, how)
        objects += [wanted.answer() for wanted in batch if not wanted.fault]
        for (path, name), wanted in zip(paths, batch, strict=True):
            if wanted.fault:
                failed.append({"path": str(path), "name": name, "error": to_wire(wanted.fault)})
        if progress is not None:
            progress(min(first + HASHED_AT_ONCE, len(items)), len(items))
    return {
        "objects": objects,
        "failed": failed,
        "size": sum(made["size"] for made in objects),
        "seconds": round(time.monotonic() - began, 6),
    }


async def _register_one(parts: Parts, name: str, source: Content, how: How) -> dict[str, Any]:
    began = time.monotonic()
    wanted = _Wanted(name, source)
    await _register(parts, [wanted], how)
    return {**wanted.answer(), "seconds": round(time.monotonic() - began, 6)}


async def _register(parts: Parts, batch: Sequence[_Wanted], how: How) -> None:
    """Bring each of a batch to its record or its fault. Raises as ``Publisher.publish``."""
    await in_thread(how.cancelled, _scan_all, batch, how)
    if not how.force:
        await _refuse_early(parts, [wanted for wanted in batch if wanted.scanned])
    await in_thread(how.cancelled, _hash_all, batch, how)
    how.steps.begin("publishing")
    ready = [(w, w.source.made(w.name, w.manifest)) for w in batch if w.manifest is not None]
    refused = await _publish(parts, ready, how)
    again = []
    for wanted, made in refused[:MAX_COMPARED]:
        theirs = await _manifest_of(parts, wanted.name)
        if theirs is None:
            continue
        ours = await _cut_alike(wanted, made.manifest, theirs, how)
        if await asyncio.to_thread(same_bytes, ours, theirs):  # permissions are no other content
            wanted.manifest, wanted.fault = theirs, None
            again.append((wanted, replace(made, manifest=theirs)))
        else:
            found = await asyncio.to_thread(difference, made.manifest, theirs)
            wanted.fault = ObjectExists(name=wanted.name, difference=f": {found}")
    await _publish(parts, again, how)


async def _cut_alike(wanted: _Wanted, ours: Manifest, theirs: Manifest, how: How) -> Manifest:
    """Our manifest, hashed again where the other's chunks of the same files lie in other places.

    An earlier version of this program cut safetensors files otherwise. What cannot be hashed now stays as it was.
    """
    if not await asyncio.to_thread(cut_otherwise, ours, theirs):
        return ours
    try:
        return await in_thread(how.cancelled, wanted.source.hash, how, os.cpu_count() or 1, theirs)
    except MooncakeError:
        return ours


async def _publish(
    parts: Parts, ready: Sequence[tuple[_Wanted, NewObject]], how: How
) -> list[tuple[_Wanted, NewObject]]:
    """Publish and hold these; those whose names are taken by other content."""
    before = [parts.holdings.lying_at(made.root) if made.root is not None else [] for _, made in ready]
    new = [made for _, made in ready]
    outcomes = await parts.publisher.publish(new, force=how.force, retagged=how.tags) if ready else []
    refused = []
    for pair, outcome, lay_there in zip(ready, outcomes, before, strict=True):
        if isinstance(outcome, ObjectExists):
            pair[0].fault = outcome
            refused.append(pair)
        else:
            pair[0].record = outcome
            pair[0].tags = await tag_version(parts.registry, outcome, how.tags, parts.name)
            _note_displaced(pair[1], lay_there, how)
    return refused


def _note_displaced(made: NewObject, before: Iterable[Holding], how: How) -> None:
    """Say what a path was served as until now, under other names."""
    names = sorted({h.name for h in before if h.digest != made.manifest.digest} - {made.name})
    if how.note is not None and names:
        how.note(f"{made.root}: no longer served as {some(names)}, which had other content")


async def _manifest_of(parts: Parts, name: str) -> Manifest | None:
    """The manifest of what a name stands for, from this node or a holder; None where none sends it soon."""
    try:
        record = await parts.registry.find(name)
        if record is None:
            return None
        known = parts.holdings.manifest(record.manifest)
        if known is not None:
            return known
        nodes = await parts.registry.nodes(list(await parts.registry.replicas(record.manifest)))
        controls = [(node, found.control) for node, found in nodes.items() if node != parts.name]
        asking = first_that_answers(parts.client, controls, record.manifest, lambda _: None)
        return await within(asking, COMPARE_SECONDS)
    except (MooncakeError, asyncio.TimeoutError):
        return None


async def _refuse_early(parts: Parts, batch: Sequence[_Wanted]) -> None:
    """Tell those whose name is taken before a terabyte is hashed in vain."""
    known = await parts.registry.find_all([wanted.name for wanted in batch])
    for wanted in batch:
        record = known.get(wanted.name)
        if record is not None and record.size != wanted.source.size and not await parts.registry.dead(record):
            sizes = f": it has {record.size} bytes, and this {wanted.source.size}"
            wanted.fault = ObjectExists(name=wanted.name, difference=sizes)


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Each once. Raises ``BadTag``."""
    return tuple(dict.fromkeys(map(check_tag, tags)))


def _scan_all(batch: Sequence[_Wanted], how: How) -> None:
    """Look at all of them, side by side."""
    _side_by_side(lambda wanted: wanted.attempt(lambda: wanted.scan(how), how), batch)


def _hash_all(batch: Sequence[_Wanted], how: How) -> None:
    """Hash all of them: the small ones side by side, each large one, and one that is alone, on all cores."""
    small = [w for w in batch if w.source.size <= RUN_BYTES] if len(batch) > 1 else []
    _side_by_side(lambda wanted: wanted.attempt(lambda: wanted.hash(how, 1), how), small)
    for wanted in batch:
        if wanted.manifest is None:
            wanted.attempt(lambda wanted=wanted: wanted.hash(how, os.cpu_count() or 1), how)  # type: ignore[misc]


def _side_by_side(step: Callable[[_Wanted], None], batch: Sequence[_Wanted]) -> None:
    def one(number: int, _: int, __: int) -> None:
        step(batch[number])

    threads = min(os.cpu_count() or 1, max(1, len(batch)))
    run_tasks(((number, 0, 0) for number in range(len(batch))), one, threads, threading.Event())
