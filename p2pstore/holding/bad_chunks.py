"""Which chunks of what lies on this node are not what was registered: they are hashed again."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from engine.files.system import system
from p2pstore.errors import Interrupted, MooncakeError, UsageError
from p2pstore.holding.catalog import Holding
from p2pstore.objects.file_system import words
from p2pstore.objects.hashing import Hasher, hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.objects.tasks import READ_BYTES, hash_range, run_tasks

BATCH_CHUNKS = 64
"""Chunks that one task of the pool checks."""


WRONG_HASH = "its hash differs"
"""What is wrong with a chunk that can be read."""


async def verify_holding(holding: Holding, manifest: Manifest, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Check every chunk of a holding, in parallel. Raises ``UsageError`` for memory, which has no file to read."""
    if manifest.files and not holding.spans:
        raise UsageError(detail=f"{holding.name!r} lies in memory and cannot be verified")
    began = time.monotonic()
    cancelled = threading.Event()
    try:
        bad = await asyncio.to_thread(bad_chunks, holding, manifest, progress, cancelled)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    return {
        "name": holding.name,
        "path": holding.place,
        "manifest": manifest.digest,
        "size": manifest.size,
        "chunks": manifest.chunks,
        "bad": bad,
        "ok": not bad,
        "seconds": round(time.monotonic() - began, 6),
    }


def bad_chunks(
    holding: Holding, manifest: Manifest, progress: Callable[[int, int], None], cancelled: threading.Event
) -> list[dict[str, Any]]:
    """The chunks that are not right, in order, each with the reason; an empty file that is not empty counts too."""
    found: list[tuple[int, dict[str, Any]]] = []
    local = threading.local()
    make = hasher(manifest.hash)
    done = 0

    def check(first: int, last: int, _: int) -> None:
        nonlocal done
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(READ_BYTES))
        for number in range(first, last):
            if cancelled.is_set():
                raise Interrupted(detail="verifying was cancelled")
            chunk = manifest.chunk(number)
            reason = chunk_fault(holding.spans[chunk.file].path, chunk, make, local.buffer)
            if reason:
                found.append((number, _bad(manifest, chunk, reason)))
            done += chunk.length
            progress(done, manifest.size)

    count = manifest.chunks
    tasks: Iterator[tuple[int, int, int]] = (
        (first, min(first + BATCH_CHUNKS, count), 0) for first in range(0, count, BATCH_CHUNKS)
    )
    run_tasks(tasks, check, os.cpu_count() or 1, cancelled)
    return [bad for _, bad in sorted(found, key=lambda pair: pair[0])] + list(_wrong_sizes(holding, manifest))


def chunk_fault(path: str, chunk: Chunk, make: Callable[[], Hasher], buffer: memoryview) -> str:
    """What is wrong with a chunk of the file at ``path``, or why it cannot be read; an empty text where it is right."""
    hashed = make()
    try:
        descriptor = system.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return words(error)
    try:
        hash_range(descriptor, chunk.file_offset, chunk.length, hashed.update, buffer, path)
    except MooncakeError as error:
        return str(error.fields.get("detail", error))
    finally:
        system.close(descriptor)
    return "" if hashed.digest() == chunk.digest else WRONG_HASH


def _wrong_sizes(holding: Holding, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Files longer than they were, or not there although empty: no chunk of theirs tells."""
    for file, span in zip(manifest.files, holding.spans, strict=True):
        try:
            size = system.stat(span.path).st_size
        except OSError as error:
            if not file.size:
                yield {"file": file.path, "chunk": None, "offset": 0, "length": 0, "reason": words(error)}
            continue
        if size > file.size:
            more = size - file.size
            reason = f"it is {more} byte{'' if more == 1 else 's'} longer"
            yield {"file": file.path, "chunk": None, "offset": file.size, "length": size - file.size, "reason": reason}


def _bad(manifest: Manifest, chunk: Chunk, reason: str) -> dict[str, Any]:
    return {
        "file": manifest.files[chunk.file].path,
        "chunk": chunk.number,
        "offset": chunk.file_offset,
        "length": chunk.length,
        "reason": reason,
    }
