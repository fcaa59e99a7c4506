"""Register: from a path, many paths or memory to holdings that are served and known: scan, hash, publish, hold.

Nothing is copied. Of many paths each costs its hashing; the metadata store and the disk are written in batches. A path
that cannot be registered is reported, with its error, and holds up none of the others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pstore.cluster.registry import PUBLISHED_AT_ONCE, registered
from p2pstore.errors import MooncakeError, ObjectExists, UsageError, to_wire
from p2pstore.holding.catalog import Holding
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Buffers, hash_views, named, release, views_of
from p2pstore.objects.names import check_object_name
from p2pstore.objects.source import RUN_BYTES, SourceTree, hash_tree, scan
from p2pstore.objects.waiting import in_thread

HASHED_AT_ONCE = PUBLISHED_AT_ONCE
"""Objects that are hashed before they are published together."""


@dataclass
class Wanted:
    """One path and the name that it is to have; what came of it: a tree with its manifest, or a fault."""

    path: Path
    name: str
    tree: SourceTree | None = None
    manifest: Manifest | None = None
    fault: MooncakeError | None = None


@dataclass
class _Work:
    """How to hash, and how far it is."""

    hash_name: str
    chunk_size: int
    cancelled: threading.Event = field(default_factory=threading.Event)


async def register(
    parts: Parts,
    path: Path,
    name: str,
    *,
    hash_name: str,
    chunk_size: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Hash the file or directory at ``path`` and serve it under ``name``.

    ``progress(done, total)`` is called in bytes, from any thread. Raises ``BadName``, ``PathNotFound``,
    ``BadSource``, ``SourceChanged``, ``StorageError``, ``ObjectExists`` or ``MetadataUnavailable``.
    """
    began = time.monotonic()
    check_object_name(name)
    tree = await asyncio.to_thread(scan, path)
    known = await parts.registry.find(name)
    if known and known.size != tree.size and not force and not await parts.registry.dead(known):
        raise ObjectExists(name=name)  # before hashing a terabyte in vain
    cancelled = threading.Event()
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, tree.size)

    try:
        manifest = await asyncio.to_thread(
            hash_tree, tree, hash_name=hash_name, chunk_size=chunk_size, progress=add, cancelled=cancelled
        )
    except asyncio.CancelledError:
        cancelled.set()
        raise
    lease = parts.registry.lease
    record = await parts.publisher.publish(name, manifest, force=force)
    await parts.publisher.replace([(Holding(record, "gold", path, tree.files), manifest)], lease)
    return {**registered(record, manifest), "seconds": round(time.monotonic() - began, 6)}


async def register_many(
    parts: Parts,
    items: Sequence[tuple[Path, str]],
    *,
    hash_name: str,
    chunk_size: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Hash and serve each (path, name). Several share a write to the metadata store.

    ``progress(done, total)`` is called in objects. Returns ``objects`` as a register describes them, and ``failed``:
    path, name and error of each that could not be. Raises ``UsageError`` for a name that comes twice, and
    ``MetadataUnavailable``; what was published before stays so.
    """
    began = time.monotonic()
    names = {name for _, name in items}
    if len(names) != len(items):
        raise UsageError(detail="a name is given to two paths")
    objects: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    work = _Work(hash_name, chunk_size)
    for first in range(0, len(items), HASHED_AT_ONCE):
        batch = [Wanted(path, name) for path, name in items[first : first + HASHED_AT_ONCE]]
        try:
            await asyncio.to_thread(_hash_all, batch, work)
        except asyncio.CancelledError:
            work.cancelled.set()
            raise
        objects += await _publish(parts, [w for w in batch if w.manifest is not None], force=force)
        failed += [{"path": str(w.path), "name": w.name, "error": to_wire(w.fault)} for w in batch if w.fault]
        if progress is not None:
            progress(min(first + HASHED_AT_ONCE, len(items)), len(items))
    return {
        "objects": objects,
        "failed": failed,
        "size": sum(made["size"] for made in objects),
        "seconds": round(time.monotonic() - began, 6),
    }


def _hash_all(batch: Sequence[Wanted], work: _Work) -> None:
    """Scan and hash all of a batch: the small ones side by side, each large one on all cores."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores, thread_name_prefix="register") as pool:
        for _ in pool.map(lambda wanted: _attempt(wanted, work, _scan_one), batch):
            pass
        small = [w for w in batch if w.tree is not None and w.tree.size <= RUN_BYTES]
        for _ in pool.map(lambda wanted: _attempt(wanted, work, _hash_small), small):
            pass
    for wanted in batch:
        if wanted.tree is not None and wanted.manifest is None:
            _attempt(wanted, work, _hash_large)


def _attempt(wanted: Wanted, work: _Work, step: Callable[[Wanted, _Work], None]) -> None:
    if wanted.fault is None and not work.cancelled.is_set():
        try:
            step(wanted, work)
        except MooncakeError as error:
            wanted.fault = error


def _scan_one(wanted: Wanted, _: _Work) -> None:
    check_object_name(wanted.name)
    wanted.tree = scan(wanted.path)


def _hash_small(wanted: Wanted, work: _Work) -> None:
    _hash(wanted, work, threads=1)


def _hash_large(wanted: Wanted, work: _Work) -> None:
    _hash(wanted, work, threads=0)


def _hash(wanted: Wanted, work: _Work, threads: int) -> None:
    assert wanted.tree is not None  # noqa: S101 - it was scanned
    wanted.manifest = hash_tree(
        wanted.tree,
        hash_name=work.hash_name,
        chunk_size=work.chunk_size,
        threads=threads,
        cancelled=work.cancelled,
    )


async def _publish(parts: Parts, hashed: Sequence[Wanted], *, force: bool) -> list[dict[str, Any]]:
    """Publish and hold what was hashed; what each became. Those that were refused have their fault afterwards."""
    lease = parts.registry.lease
    ready = [(w.name, w.manifest) for w in hashed if w.manifest is not None]
    published: list[tuple[Holding, Manifest]] = []
    for wanted, record in zip(hashed, await parts.publisher.publish_all(ready, force=force), strict=True):
        if isinstance(record, ObjectExists):
            wanted.fault = record
        elif wanted.tree is not None and wanted.manifest is not None:
            published.append((Holding(record, "gold", wanted.path, wanted.tree.files), wanted.manifest))
    await parts.publisher.replace(published, lease)
    return [registered(holding.record, manifest) for holding, manifest in published]


async def register_memory(
    parts: Parts, name: str, buffers: Buffers, *, hash_name: str, chunk_size: int, force: bool
) -> dict[str, Any]:
    """Hash and serve buffers in place under ``name``. Raises ``BadName``, ``UsageError``, ``ObjectExists``.

    When it raises, or was cancelled, nothing holds the buffers any more.
    """
    began = time.monotonic()
    check_object_name(name)
    views = views_of(named(buffers))
    kind = "file" if set(views) == {""} else "directory"
    cancelled = threading.Event()

    def work() -> Manifest:
        threads = os.cpu_count() or 1
        return hash_views(
            views, kind=kind, hash_name=hash_name, chunk_size=chunk_size, threads=threads, cancelled=cancelled
        )

    try:
        manifest = await in_thread(cancelled, work)
        lease = parts.registry.lease
        record = await parts.publisher.publish(name, manifest, force=force)
        await parts.publisher.replace([(Holding(record, "gold", None, (), tuple(views.values())), manifest)], lease)
    except BaseException:
        release(views.values())
        raise
    return {**registered(record, manifest), "seconds": round(time.monotonic() - began, 6)}
