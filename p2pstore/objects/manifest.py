"""The manifest: which files an object has, and the hash of each of their chunks. Pure; its bytes are the identity.

Canonical JSON (sorted keys, no spaces, UTF-8), whose SHA-256 names the object's content::

    {"chunk_size":4194304,"directories":[],
     "files":[{"chunks":["<hex>","<hex>"],"mode":420,"path":"a/b","size":5000000}],
     "format":"mooncake.manifest.v1","hash":"xxh3_128","kind":"directory"}

Chunks never span files, so equal files share chunks; the last chunk of a file is short, an empty file has none.
``kind`` is ``file`` (one entry, with the empty path) or ``directory`` (entries sorted by path; ``directories`` lists
the ones that hold no file). Over the data plane an object is the concatenation of its files in this order: a chunk's
place in it is its *offset*.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from p2pstore.errors import BadManifest, UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.choices import DIGEST_BYTES, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from p2pstore.objects.json_slices import json_list, to_json
from p2pstore.objects.names import path_fault

FORMAT = "mooncake.manifest.v1"

MIB = 1 << 20

CHUNKS_WANTED = 2048
"""The chunk size is doubled until an object has about so many chunks at most."""

MAX_MANIFEST_BYTES = 256 * MIB
MAX_FILES = 1_000_000
MAX_OBJECT_BYTES = 1 << 46
"""64 TiB: an object is one range of the 47-bit address space."""


def choose_chunk_size(size: int) -> int:
    """The chunk size (bytes) for an object of ``size`` bytes: a power of two between 1 and 64 MiB."""
    chunk = MIN_CHUNK_SIZE
    while chunk < MAX_CHUNK_SIZE and size > chunk * CHUNKS_WANTED:
        chunk *= 2
    return chunk


def check_chunk_size(chunk_size: int) -> int:
    """Return ``chunk_size`` if it is allowed, else raise ``UsageError``."""
    if not MIN_CHUNK_SIZE <= chunk_size <= MAX_CHUNK_SIZE or chunk_size & (chunk_size - 1):
        raise UsageError(detail=f"chunk size {chunk_size} is not a power of two between 1 MiB and 64 MiB")
    return chunk_size


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path in the object, its size in bytes, its permission bits and its chunks' digests."""

    path: str
    size: int
    mode: int
    chunks: tuple[bytes, ...]


class Chunk(NamedTuple):
    """Where a chunk lies: in its file, in the object, and what its hash must be."""

    number: int
    file: int
    file_offset: int
    offset: int
    length: int
    digest: bytes


def chunk_count(size: int, chunk_size: int) -> int:
    """How many chunks a file of ``size`` bytes has."""
    return -(-size // chunk_size)


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest. Chunks are numbered from 0 through all files."""

    kind: str
    hash: str
    chunk_size: int
    files: tuple[FileEntry, ...]
    directories: tuple[str, ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)

    @cached_property
    def file_offsets(self) -> tuple[int, ...]:
        """Where each file begins in the object; one more entry, the object's size, closes the list."""
        return tuple(accumulate((f.size for f in self.files), initial=0))

    @cached_property
    def first_chunks(self) -> tuple[int, ...]:
        """The number of each file's first chunk; one more entry, the number of chunks, closes the list."""
        return tuple(accumulate((len(f.chunks) for f in self.files), initial=0))

    @cached_property
    def lengths(self) -> Sequence[int]:
        """Bytes of each chunk. For many files this takes a while the first time, so ask in a thread first."""
        found = array("I")
        for file in self.files:
            if file.size:
                whole, rest = divmod(file.size, self.chunk_size)
                found.extend([self.chunk_size] * whole)
                if rest:
                    found.append(rest)
        return found

    def bytes_of(self, chunks: Bitmap) -> int:
        """Bytes of the chunks of a bitmap; likewise."""
        if chunks.full:
            return self.size
        return sum(map(self.lengths.__getitem__, chunks))

    @property
    def chunks(self) -> int:
        """How many chunks the object has."""
        return self.first_chunks[-1]

    def chunk(self, index: int) -> Chunk:
        """The chunk of that number, 0 <= ``index`` < ``chunks``."""
        # Empty files share their first chunk's number with the next file; the rightmost of equals has it.
        file = bisect_right(self.first_chunks, index, hi=len(self.files)) - 1
        entry = self.files[file]
        within = (index - self.first_chunks[file]) * self.chunk_size
        length = min(self.chunk_size, entry.size - within)
        digest = entry.chunks[index - self.first_chunks[file]]
        return Chunk(index, file, within, self.file_offsets[file] + within, length, digest)

    def all_chunks(self) -> Iterator[Chunk]:
        """Every chunk, in order."""
        return map(self.chunk, range(self.chunks))

    def chunks_of(self, offset: int, length: int) -> range:
        """The chunks that a range of the object touches; ``length`` is at least 1."""
        return range(self._chunk_at(offset), self._chunk_at(offset + length - 1) + 1)

    def _chunk_at(self, offset: int) -> int:
        file = bisect_right(self.file_offsets, offset, hi=len(self.files)) - 1
        return self.first_chunks[file] + (offset - self.file_offsets[file]) // self.chunk_size

    def to_bytes(self) -> bytes:
        """The canonical JSON. Of many files it takes a second, in which other threads run."""
        files = (
            {"path": f.path, "size": f.size, "mode": f.mode, "chunks": [c.hex() for c in f.chunks]} for f in self.files
        )
        directories = b"".join(json_list(self.directories))
        pieces = [b'{"chunk_size":%d,"directories":%b,"files":' % (self.chunk_size, directories), *json_list(files)]
        pieces.append(b',"format":%b,"hash":%b,"kind":%b}' % (*map(to_json, (FORMAT, self.hash, self.kind)),))
        return b"".join(pieces)

    def prepare(self) -> Manifest:
        """Find out, in the thread that calls this, what others would have to wait for. Returns itself."""
        _ = self.digest, self.size, self.file_offsets, self.first_chunks, self.lengths
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex: the object's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse(data: bytes, *, peer: str, digest: str = "") -> Manifest:
    """The manifest in ``data``, checked in every respect, and against ``digest`` where one is given.

    ``peer`` is who sent it. Raises ``BadManifest`` for anything that is not a canonical, safe manifest: a path from a
    peer that passes here stays inside any directory that it is joined to.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BadManifest(peer=peer, detail=f"it is longer than {MAX_MANIFEST_BYTES} bytes")
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise BadManifest(peer=peer, detail="its SHA-256 is not the one that was asked for")
    try:
        manifest = _build(json.loads(data))
    except _Fault as fault:
        raise BadManifest(peer=peer, detail=str(fault)) from None
    except (ValueError, RecursionError):
        raise BadManifest(peer=peer, detail="it is not JSON") from None
    if manifest.to_bytes() != data:
        raise BadManifest(peer=peer, detail="it is not in canonical form")
    vars(manifest)["digest"] = hashlib.sha256(data).hexdigest()  # what ``digest`` would find out with another second
    return manifest.prepare()


class _Fault(Exception):
    """What is wrong with a manifest; it never leaves this module."""


def _need(condition: bool, detail: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise _Fault(detail)


def _whole(value: Any, most: int, what: str) -> int:
    _need(type(value) is int and 0 <= value <= most, f"{what} is not a number between 0 and {most}")
    return int(value)


def _build(data: Any) -> Manifest:
    _need(isinstance(data, dict), "it is not an object")
    keys = {"format", "kind", "hash", "chunk_size", "files", "directories"}
    _need(set(data) == keys, "its keys are not a manifest's")
    _need(data["format"] == FORMAT, f"its format is not {FORMAT}")
    kind, hash_name = data["kind"], data["hash"]
    _need(isinstance(kind, str) and kind in {"file", "directory"}, "its kind is unknown")
    _need(isinstance(hash_name, str) and hash_name in DIGEST_BYTES, "its hash is unknown")
    chunk_size = _whole(data["chunk_size"], MAX_CHUNK_SIZE, "chunk_size")
    _need(chunk_size >= MIN_CHUNK_SIZE and not chunk_size & (chunk_size - 1), "chunk_size is no allowed power of two")
    _need(isinstance(data["files"], list) and len(data["files"]) <= MAX_FILES, "files is not a list of allowed length")
    _need(isinstance(data["directories"], list) and len(data["directories"]) <= MAX_FILES, "directories is not")
    files = tuple(_entry(f, chunk_size, DIGEST_BYTES[hash_name]) for f in data["files"])
    directories = tuple(data["directories"])
    _need(all(isinstance(d, str) for d in directories), "a directory is not text")
    if kind == "file":
        _need(len(files) == 1 and files[0].path == "" and not directories, "a file object has one file, with no path")
    else:
        _check_tree([f.path for f in files], directories)
    _need(sum(f.size for f in files) <= MAX_OBJECT_BYTES, f"it is larger than {MAX_OBJECT_BYTES} bytes")
    return Manifest(kind, hash_name, chunk_size, files, directories)


def _entry(data: Any, chunk_size: int, digest_bytes: int) -> FileEntry:
    _need(isinstance(data, dict) and set(data) == {"path", "size", "mode", "chunks"}, "a file's keys are wrong")
    _need(isinstance(data["path"], str), "a path is not text")
    size = _whole(data["size"], MAX_OBJECT_BYTES, "a size")
    mode = _whole(data["mode"], 0o777, "a mode")
    chunks = data["chunks"]
    _need(isinstance(chunks, list), "a file's chunks are not a list")
    _need(len(chunks) == chunk_count(size, chunk_size), "a file has a wrong number of chunks")
    _need(all(isinstance(c, str) and len(c) == 2 * digest_bytes for c in chunks), "a chunk's digest is not as long")
    return FileEntry(data["path"], size, mode, tuple(bytes.fromhex(c) for c in chunks))


def _check_tree(files: Sequence[str], directories: Sequence[str]) -> None:
    """Every path safe, sorted, once, and none a file where another needs a directory."""
    for paths in (files, directories):
        for path in paths:
            fault = path_fault(path)
            _need(not fault, f"the path {path!r} {fault}")
        _need(all(a < b for a, b in pairwise(paths)), "its paths are not sorted, or one comes twice")
    known = set(files)
    empty = set(directories)
    for path in [*files, *directories]:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            _need(parent not in known, f"{parent!r} is a file and a directory")
            _need(parent not in empty, f"{parent!r} is said to be empty and is not")
    _need(not known & empty, "a path is a file and a directory")
