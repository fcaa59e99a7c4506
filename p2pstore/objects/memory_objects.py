"""Objects in memory: one buffer (a file object) or several by name (a directory object), hashed and served in place.

Memory of a GPU is one kind of it: what is hashed or sent of it is copied out, piece by piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.cuda.copies import Copies
from engine.cuda.device_memory import DeviceMemory, device_memory, on_device
from engine.memory.lent import byte_view
from p2pstore.errors import UsageError
from p2pstore.objects.hashing import Hasher, hasher
from p2pstore.objects.manifest import Manifest

if TYPE_CHECKING:
    from typing_extensions import Buffer

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from p2pstore.errors import Interrupted
from p2pstore.objects.cutting import chunk_count, chunk_end, chunk_start, origin_of
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.manifest import check_chunk_size, choose_chunk_size
from p2pstore.objects.names import path_fault
from p2pstore.objects.tasks import run_tasks
from p2pstore.objects.tree_hash import RUN_BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer

Buffers: TypeAlias = "Buffer | DeviceMemory | Mapping[str, Buffer | DeviceMemory]"
"""One buffer, or several by the path that each has in the object."""

Lent: TypeAlias = "memoryview | DeviceMemory"
"""The bytes of a buffer: of the host as a flat view, or of a GPU."""

MODE = 0o644
"""The permission bits of a file that was memory."""


@contextmanager
def lent_by_gpus(buffers: Buffers, *, writable: bool = False) -> Iterator[Buffers]:
    """The same, with the memory of what lies on a GPU in its place, until the end of the block.

    To be called in the caller's own thread, whose current streams count. Raises as ``device_memory``.
    """
    found: list[Lent] = []

    def taken(buffer: Buffer | DeviceMemory, path: object) -> Buffer | DeviceMemory:
        if isinstance(buffer, DeviceMemory) or not on_device(buffer):
            return buffer
        memory = device_memory(buffer, f"buffer {path!r}", writable=writable)
        found.append(memory)
        return memory

    try:
        if isinstance(buffers, Mapping):
            yield {path: taken(buffer, path) for path, buffer in buffers.items()}
        else:
            yield taken(buffers, "")
    finally:
        release(found)


def named(buffers: Buffers) -> dict[str, Buffer | DeviceMemory]:
    """``buffers`` by path, sorted; a single one under the empty path. Raises ``UsageError`` for an unsafe path."""
    if not isinstance(buffers, Mapping):
        return {"": buffers}
    for path in buffers:
        fault = path_fault(path) if isinstance(path, str) else "is not text"
        if not fault and any(str(parent) in buffers for parent in PurePosixPath(path).parents):
            fault = "lies inside another's, as if that were a directory"
        if fault:
            raise UsageError(detail=f"the buffer name {path!r} {fault}")
    return {path: buffers[path] for path in sorted(buffers)}


def hash_views(
    views: Mapping[str, Lent],
    *,
    kind: str,
    hash_name: str,
    chunk_size: int,
    threads: int,
    cancelled: threading.Event,
    origins: Mapping[int, int] | None = None,
) -> Manifest:
    """The manifest of byte views by path; chunks are hashed in parallel. ``chunk_size`` 0 chooses one.

    ``origins`` are as of ``hash_tree``.

    Raises ``UsageError``, ``Interrupted`` and, of memory of GPUs, ``GpuFailed``.
    """
    size = sum(len(v) for v in views.values())
    chunk_size = check_chunk_size(chunk_size) if chunk_size else choose_chunk_size(size)
    make = hasher(hash_name)
    flat = list(views.values())
    gpu = next((view for view in flat if isinstance(view, DeviceMemory)), None)
    copies = Copies(gpu.cuda) if gpu is not None else None

    def check() -> None:
        if cancelled.is_set():
            raise Interrupted(detail="hashing was cancelled")

    def read(view: Lent, start: int, length: int) -> bytes:
        return b"".join(map(bytes, _pieces(view, start, length, copies, check)))

    def run(file: int, first: int, last: int) -> None:
        for chunk in range(first, last):
            check()
            start = chunk_start(chunk, chunk_size, starts[file])
            end = chunk_end(chunk, len(flat[file]), chunk_size, starts[file])
            digests[file][chunk] = _digest(make(), _pieces(flat[file], start, end - start, copies, check))

    try:
        starts = [
            origin_of(partial(read, view), len(view), chunk_size) if origins is None else origins.get(number, 0)
            for number, view in enumerate(flat)
        ]
        counts = [chunk_count(len(view), chunk_size, start) for view, start in zip(flat, starts, strict=True)]
        digests = [[b""] * count for count in counts]
        run_tasks(_tasks(counts, chunk_size), run, threads, cancelled)
    finally:
        if copies is not None:
            copies.close()
    entries = tuple(
        FileEntry(path, len(view), MODE, tuple(chunks), origin)
        for (path, view), chunks, origin in zip(views.items(), digests, starts, strict=True)
    )
    return Manifest(kind, hash_name, chunk_size, entries)


def _digest(hashed: Hasher, pieces: Iterable[memoryview]) -> bytes:
    for piece in pieces:
        hashed.update(piece)
    return hashed.digest()


def _pieces(
    view: Lent, start: int, length: int, copies: Copies | None, check: Callable[[], None]
) -> Iterator[memoryview]:
    """A range of a buffer, in pieces; those of a GPU are valid until the next one."""
    if isinstance(view, memoryview):
        yield view[start : start + length]
    elif copies is not None:
        with closing(copies.pieces(view, start, length, check)) as pieces:
            yield from pieces


def _tasks(counts: list[int], chunk_size: int) -> Iterator[tuple[int, int, int]]:
    step = max(1, RUN_BYTES // chunk_size)
    for number, count in enumerate(counts):
        for first in range(0, count, step):
            yield number, first, min(count, first + step)


def views_of(buffers: Mapping[str, Buffer | DeviceMemory]) -> dict[str, Lent]:
    """Flat views of the buffers' bytes. Raises ``UsageError`` as ``byte_view``; then none is held."""
    views: dict[str, Lent] = {}
    try:
        for path, buffer in buffers.items():
            views[path] = buffer[:] if isinstance(buffer, DeviceMemory) else byte_view(buffer, f"buffer {path!r}")
    except BaseException:
        release(views.values())
        raise
    return views


def release(views: Iterable[Lent]) -> None:
    """Give the memory back to whoever lent it. Twice is harmless."""
    for view in views:
        view.release()
