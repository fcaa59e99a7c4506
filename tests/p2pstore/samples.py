"""Objects to test with: trees of files, and their manifests with chunks small enough for a test."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from pathlib import Path

import xxhash

from p2pstore.cluster.records import ObjectRecord
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.manifest import Manifest

KIB = 1024
MIB = 1024 * KIB


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression and no mistaken offset leaves equal."""
    return random.Random(f"{size} {seed}").randbytes(size)


@functools.lru_cache(maxsize=2)
def large(size: int, seed: int = 0) -> bytes:
    """``content`` that the tests of a module share; made when one asks, as each worker of a run imports all modules."""
    return content(size, seed)


def manifest_of(files: Mapping[str, bytes], chunk_size: int = MIB, directories: tuple[str, ...] = ()) -> Manifest:
    """The manifest of ``files``; the one path "" makes it a file's. ``chunk_size`` may be smaller than is allowed."""
    entries = []
    for path in sorted(files):
        data = files[path]
        pieces = [data[at : at + chunk_size] for at in range(0, len(data), chunk_size)]
        entries.append(FileEntry(path, len(data), 0o644, tuple(xxhash.xxh3_128(p).digest() for p in pieces)))
    kind = "file" if set(files) == {""} else "directory"
    return Manifest(kind, "xxh3_128", chunk_size, tuple(entries), directories)


def write_tree(root: Path, files: Mapping[str, bytes], directories: tuple[str, ...] = ()) -> None:
    """Put ``files`` below ``root``, or at ``root`` for the one path ""."""
    if set(files) == {""}:
        root.write_bytes(files[""])
        return
    root.mkdir()
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    for path in directories:
        (root / path).mkdir(parents=True)


def read_tree(root: Path) -> dict[str, bytes]:
    """The files below ``root`` by path, or the one at ``root`` under ""."""
    if root.is_file():
        return {"": root.read_bytes()}
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def record_of(name: str, manifest: Manifest, creator: str = "someone") -> ObjectRecord:
    """What stands in the metadata store for it."""
    return ObjectRecord(
        name=name,
        manifest=manifest.digest,
        size=manifest.size,
        chunk_size=manifest.chunk_size,
        chunks=manifest.chunks,
        files=len(manifest.files),
        kind=manifest.kind,
        hash=manifest.hash,
        creator=creator,
        created=1.0,
    )
