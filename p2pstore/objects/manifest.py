"""The manifest: which files an object has, and the hash of each of their chunks. Pure; its bytes are the identity.

Canonical JSON (sorted keys, no spaces, UTF-8), whose SHA-256 names the object's content::

    {"chunk_size":4194304,"directories":[],
     "files":[{"chunks":["<hex>","<hex>"],"mode":420,"path":"a/b","size":5000000}],
     "format":"mooncake.manifest.v1","hash":"xxh3_128","kind":"directory"}

Chunks never span files, so equal files share chunks; the last chunk of a file is short, an empty file has none.
A file whose chunks are not counted from its beginning (``p2pstore.objects.cutting``) has ``"origin"`` before its path,
and a manifest with any has the format ``mooncake.manifest.v2``: earlier versions of this program read v1 alone, and
refuse the other by its name.
``kind`` is ``file`` (one entry, with the empty path) or ``directory`` (entries sorted by path; ``directories`` lists
the ones that hold no file). Over the data plane an object is the concatenation of its files in this order: a chunk's
place in it is its *offset*. ``p2pstore.objects.manifest_reader`` reads it.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from p2pstore.errors import UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.choices import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from p2pstore.objects.cutting import chunk_at, chunk_end, chunk_start
from p2pstore.objects.file_list import FileEntry, FileList
from p2pstore.objects.json_slices import json_list, to_json

FORMAT = "mooncake.manifest.v1"
FORMAT_ORIGINS = "mooncake.manifest.v2"
"""That of a manifest in which a file has an origin."""

MIB = 1 << 20

CHUNKS_WANTED = 2048
"""The chunk size is doubled until an object has about so many chunks at most."""


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


class Chunk(NamedTuple):
    """Where a chunk lies: in its file, in the object, and what its hash must be."""

    number: int
    file: int
    file_offset: int
    offset: int
    length: int
    digest: bytes


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest. Chunks are numbered from 0 through all files."""

    kind: str
    hash: str
    chunk_size: int
    files: Sequence[FileEntry]
    """Whatever it is given as, it is a ``FileList`` then."""
    directories: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """The format in which it is written."""
        return FORMAT_ORIGINS if self.columns.origins else FORMAT

    def __post_init__(self) -> None:
        if not isinstance(self.files, FileList):
            object.__setattr__(self, "files", FileList.of(self.files))

    @property
    def columns(self) -> FileList:
        """``files``, for those who go through all of them."""
        assert isinstance(self.files, FileList)  # noqa: S101 - made so above
        return self.files

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.columns.sizes)

    @cached_property
    def file_offsets(self) -> Sequence[int]:
        """Where each file begins in the object; one more entry, the object's size, closes the list."""
        return array("Q", accumulate(self.columns.sizes, initial=0))

    @property
    def first_chunks(self) -> Sequence[int]:
        """The number of each file's first chunk; one more entry, the number of chunks, closes the list."""
        return self.columns.first_chunks

    @cached_property
    def lengths(self) -> Sequence[int]:
        """Bytes of each chunk. For many files this takes a while the first time, so ask in a thread first."""
        found = array("I")
        chunk_size = self.chunk_size
        origins = self.columns.origins
        for number, size in enumerate(self.columns.sizes):
            if origins and number in origins:
                found.append(origins[number])
                size -= origins[number]  # noqa: PLW2901 - what is left
            if 0 < size <= chunk_size:
                found.append(size)
            elif size:
                whole, rest = divmod(size, chunk_size)
                found.extend([chunk_size] * whole)
                if rest:
                    found.append(rest)
        return found

    def all_directories(self) -> set[str]:
        """Every directory but the root, as paths from there. Cheap for many files: one look at each."""
        found: set[str] = set()
        before = ""
        for path in itertools.chain((f"{directory}/" for directory in self.directories), self.columns.paths):
            parent = path.rpartition("/")[0]
            if parent == before:
                continue
            before = parent
            while parent and parent not in found:
                found.add(parent)
                parent = parent.rpartition("/")[0]
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
        files = self.columns
        file = bisect_right(files.first_chunks, index, hi=len(files)) - 1
        number, origin = index - files.first_chunks[file], files.origins.get(file, 0)
        within = chunk_start(number, self.chunk_size, origin)
        length = chunk_end(number, files.sizes[file], self.chunk_size, origin) - within
        return Chunk(index, file, within, self.file_offsets[file] + within, length, files.digest(index))

    def all_chunks(self) -> Iterator[Chunk]:
        """Every chunk, in order."""
        return map(self.chunk, range(self.chunks))

    def chunks_of(self, offset: int, length: int) -> range:
        """The chunks that a range of the object touches; ``length`` is at least 1."""
        return range(self._chunk_at(offset), self._chunk_at(offset + length - 1) + 1)

    def _chunk_at(self, offset: int) -> int:
        file = bisect_right(self.file_offsets, offset, hi=len(self.files)) - 1
        origin = self.columns.origins.get(file, 0)
        return self.first_chunks[file] + chunk_at(offset - self.file_offsets[file], self.chunk_size, origin)

    def to_bytes(self) -> bytes:
        """The canonical JSON. Of many files it takes a second, in which other threads run."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The same, in pieces to be joined."""
        yield b'{"chunk_size":%d,"directories":' % self.chunk_size
        yield from json_list(self.directories)
        yield b',"files":'
        yield from self.columns.json()
        yield b',"format":%b,"hash":%b,"kind":%b}' % (*map(to_json, (self.format, self.hash, self.kind)),)

    def prepare(self) -> Manifest:
        """Find out, in the thread that calls this, what others would have to wait for. Returns itself."""
        _ = self.digest, self.size, self.file_offsets, self.lengths
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex: the object's identity."""
        hashed = hashlib.sha256()
        for piece in self.pieces():
            hashed.update(piece)
        return hashed.hexdigest()
