"""Destinations in files with small chunks, and what fills them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.objects import manifest as manifest_module
from p2pstore.objects import manifest_reader
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.destination import Destination
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.samples import KIB, content, manifest_of

CHUNK = 4 * KIB
FILES = {"a": content(3 * CHUNK + 1), "b/c d/é": content(CHUNK, 2), "b/empty": b"", "z": content(7, 3)}
EMPTY = ("none", "b/x/y")
TREE = manifest_of(FILES, CHUNK, tuple(sorted(EMPTY)))
FILE = manifest_of({"": content(5 * CHUNK + 9, 4)}, CHUNK)
NOTHING = manifest_of({"": b""}, CHUNK)
CONTENT = {TREE.digest: FILES, FILE.digest: {"": content(5 * CHUNK + 9, 4)}, NOTHING.digest: {"": b""}}
EACH = pytest.mark.parametrize("manifest", [TREE, FILE, NOTHING], ids=["directory", "file", "empty file"])


def whole(manifest: Manifest) -> bytes:
    content = CONTENT[manifest.digest]
    return b"".join(content[path] for path in sorted(content))


def feed(destination: FileDestination, run: range, data: bytes | None = None, scratch: int = 1000) -> None:
    """Write a run as a pull does: through a sink, in pieces that fit no chunk."""
    manifest = destination.manifest
    first, last = manifest.chunk(run[0]), manifest.chunk(run[-1])
    data = whole(manifest)[first.offset : last.offset + last.length] if data is None else data
    sink = destination.sink(run, memoryview(bytearray(scratch)))
    done = 0
    try:
        while done < len(data):
            view = sink.buffer(len(data) - done)
            count = min(len(view), 777, len(data) - done)
            view[:count] = data[done : done + count]
            sink.filled(count)
            done += count
    finally:
        sink.close()
        kept = run[: sink.kept]
        destination.verified.update(kept)
        destination.keep(kept)


def receive(destination: Destination, run: range, data: bytes, step: int = 7, scratch: int = 5) -> int:
    """Let a run come ``step`` bytes at a time; how many chunks were right."""
    sink = destination.sink(run, memoryview(bytearray(scratch)))
    done = 0
    try:
        while done < len(data):
            view = sink.buffer(len(data) - done)
            count = min(len(view), step)
            view[:count] = data[done : done + count]
            sink.filled(count)
            done += count
    finally:
        sink.close()
        sink.close()
    return sink.kept


@contextlib.contextmanager
def given_up(destination: FileDestination) -> Iterator[FileDestination]:
    """Abort it in the end."""
    try:
        yield destination
    finally:
        destination.abort()


def fill(destination: FileDestination) -> None:
    if destination.manifest.chunks:
        feed(destination, range(destination.manifest.chunks))


def resumed(path: Path, manifest: Manifest) -> FileDestination:
    made = FileDestination(path, manifest, "n")
    made.recheck(threading.Event())
    return made


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "MIN_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(manifest_reader, "MIN_CHUNK_SIZE", CHUNK)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dest"


def leftovers(path: Path) -> set[str]:
    return {p.name for p in path.parent.iterdir()} - {path.name}
