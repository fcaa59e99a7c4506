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
place in it is its *offset*.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from p2pstore.errors import BadManifest, UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.choices import DIGEST_BYTES, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from p2pstore.objects.cutting import chunk_at, chunk_count, chunk_end, chunk_start
from p2pstore.objects.file_list import FileEntry, FileList, chunks_json, entry_json, json_text
from p2pstore.objects.json_slices import json_list, to_json
from p2pstore.objects.names import tree_fault

FORMAT = "mooncake.manifest.v1"
FORMAT_ORIGINS = "mooncake.manifest.v2"
"""That of a manifest in which a file has an origin."""

MIB = 1 << 20

CHUNKS_WANTED = 2048
"""The chunk size is doubled until an object has about so many chunks at most."""

MAX_MANIFEST_BYTES = 256 * MIB
MAX_FILES = 1_000_000
MAX_MODE = 0o777
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


def parse(data: bytes, *, peer: str, digest: str = "") -> Manifest:
    """The manifest in ``data``, checked in every respect, and against ``digest`` where one is given.

    ``peer`` is who sent it. Raises ``BadManifest`` for anything that is not a canonical, safe manifest: a path from a
    peer that passes here stays inside any directory that it is joined to.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BadManifest(peer=peer, detail=f"it is longer than {MAX_MANIFEST_BYTES} bytes")
    found = hashlib.sha256(data).hexdigest()
    if digest and found != digest:
        raise BadManifest(peer=peer, detail="its SHA-256 is not the one that was asked for")
    try:
        manifest = _Reader(data).read()
    except _Fault as fault:
        raise BadManifest(peer=peer, detail=str(fault)) from None
    vars(manifest)["digest"] = found  # what ``digest`` would find out with another second
    return manifest.prepare()


class _Fault(Exception):
    """What is wrong with a manifest; it never leaves this module."""


def _need(condition: bool, detail: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise _Fault(detail)


_HEAD = re.compile(rb'\{"chunk_size":(\d{1,10}),"directories":\[')
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_DIRECTORY = re.compile(_TEXT)
_REST_OF_FILE = re.compile(rb'\],"mode":(\d{1,6})(?:,"origin":(\d{1,10}))?,"path":(%b),"size":(\d{1,20})\}' % _TEXT)
_TAIL = re.compile(rb'\],"format":"([^"\\]*)","hash":"([^"\\]*)","kind":"([^"\\]*)"\}')
_BEFORE_CHUNKS = b'{"chunks":['
_SMALL_FILE = (
    rb'\{"chunks":\["([0-9a-f]{%d})"\],"mode":(0|[1-9]\d{0,2}),"path":"([^"\\\x00-\x1f]*)","size":([1-9]\d{0,8})\}'
)
"""A file of one chunk, whose path has nothing to escape: where it fits, it is in canonical form."""

_MAX_TAIL = 200
_MAX_TEXT = 32 * 1024
"""Bytes of JSON in which the longest path there is, each of its characters escaped, fits."""


class _Reader:
    """Reads a manifest's bytes from front to back, an entry at a time: no other thread has to wait for more.

    As there is one form of each manifest, the bytes of an entry are compared with what it is written as.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._paths: list[str] = []
        self._sizes, self._modes, self._first_chunks = array("Q"), array("H"), array("Q", [0])
        self._digests = bytearray()
        self._origins: dict[int, int] = {}

    def read(self) -> Manifest:
        """All of it. Raises ``_Fault``."""
        form, hash_name, kind, end = self._tail()
        digest_bytes = DIGEST_BYTES[hash_name]
        head = _HEAD.match(self._data)
        if head is None:
            raise _Fault(_NOT_CANONICAL)
        chunk_size = int(head[1])
        allowed = MIN_CHUNK_SIZE <= chunk_size <= MAX_CHUNK_SIZE and not chunk_size & (chunk_size - 1)
        _need(allowed and b"%d" % chunk_size == head[1], "chunk_size is no allowed power of two")
        self._at = head.end()
        directories = tuple(self._directories())
        self._expect(b'],"files":[')
        small = re.compile(_SMALL_FILE % (2 * digest_bytes))
        while self._at < end:
            if self._paths:
                self._expect(b",")
            _need(len(self._paths) < MAX_FILES, "files is not a list of allowed length")
            found = small.match(self._data, self._at, self._at + _MAX_TEXT)
            if found is None or not self._small_file(found, chunk_size):
                self._file(chunk_size, digest_bytes)
        _need(self._at == end, _NOT_CANONICAL)
        _need(sum(self._sizes) <= MAX_OBJECT_BYTES, f"it is larger than {MAX_OBJECT_BYTES} bytes")
        _need((form == FORMAT_ORIGINS) == bool(self._origins), _NOT_CANONICAL)
        paths = tuple(self._paths)
        if kind == "file":
            _need(paths == ("",) and not directories, "a file object has one file, with no path")
        else:
            fault = tree_fault(paths, directories)
            _need(not fault, fault)
        digests = bytes(self._digests)
        files = FileList(paths, self._sizes, self._modes, self._first_chunks, digests, digest_bytes, self._origins)
        return Manifest(kind, hash_name, chunk_size, files, directories)

    def _tail(self) -> tuple[str, str, str, int]:
        """Format, hash and kind, and where the files end. No text in JSON has these bytes: its quotes are escaped."""
        end = self._data.rfind(b'],"format":', max(0, len(self._data) - _MAX_TAIL))
        found = _TAIL.fullmatch(self._data, end) if end >= 0 else None
        if found is None:
            raise _Fault(_NOT_CANONICAL)
        form, hash_name, kind = (part.decode(errors="replace") for part in found.groups())
        _need(form in {FORMAT, FORMAT_ORIGINS}, f"its format is neither {FORMAT} nor {FORMAT_ORIGINS}")
        _need(hash_name in DIGEST_BYTES, "its hash is unknown")
        _need(kind in {"file", "directory"}, "its kind is unknown")
        return form, hash_name, kind, end

    def _directories(self) -> Iterator[str]:
        count = 0
        while self._data[self._at : self._at + 1] != b"]":
            if count:
                self._expect(b",")
            _need(count < MAX_FILES, "directories is not a list of allowed length")
            count += 1
            found = _DIRECTORY.match(self._data, self._at, self._at + _MAX_TEXT)
            if found is None:
                raise _Fault(_NOT_CANONICAL)
            path, canonical = _text(found[0])
            _need(canonical.encode() == found[0], _NOT_CANONICAL)
            self._at = found.end()
            yield path

    def _small_file(self, found: re.Match[bytes], chunk_size: int) -> bool:
        """Take what ``_SMALL_FILE`` found; false where there is something about it to be looked at more closely."""
        digest, mode, path, size = found.groups()
        if int(size) > chunk_size or int(mode) > MAX_MODE:
            return False
        try:
            self._paths.append(path.decode())
        except ValueError:
            return False
        self._sizes.append(int(size))
        self._modes.append(int(mode))
        self._digests += bytes.fromhex(digest.decode())
        self._first_chunks.append(self._first_chunks[-1] + 1)
        self._at = found.end()
        return True

    def _file(self, chunk_size: int, digest_bytes: int) -> None:
        """Read one file."""
        begin = self._at
        self._expect(_BEFORE_CHUNKS)
        end = self._data.find(b"]", self._at)
        found = _REST_OF_FILE.match(self._data, end, end + _MAX_TEXT) if end >= 0 else None
        if found is None:
            raise _Fault(_NOT_CANONICAL)
        mode, origin, size = int(found[1]), int(found[2] or 0), int(found[4])
        _need(mode <= MAX_MODE, f"a mode is not a number between 0 and {MAX_MODE}")
        _need(size <= MAX_OBJECT_BYTES, f"a size is not a number between 0 and {MAX_OBJECT_BYTES}")
        if found[2] is not None:
            _need(0 < origin < min(size, chunk_size), "an origin is not inside its file's first chunk")
            self._origins[len(self._paths)] = origin
        path, canonical = _text(found[3])
        count = chunk_count(size, chunk_size, origin)
        chunks = self._chunks(self._data[self._at : end], count, digest_bytes)
        written = entry_json(chunks, mode, canonical, size, origin)
        self._at = found.end()
        _need(written.encode() == self._data[begin : self._at], _NOT_CANONICAL)
        self._paths.append(path)
        self._sizes.append(size)
        self._modes.append(mode)
        self._first_chunks.append(self._first_chunks[-1] + count)

    def _chunks(self, text: bytes, count: int, digest_bytes: int) -> str:
        """Take the digests in ``text``; how they are written."""
        width = 2 * digest_bytes
        _need(len(text) == max(0, count * (width + 3) - 1), "a file has a wrong number of chunks, or of their digits")
        try:
            digests = bytes.fromhex(text.translate(None, b'",').decode())
        except ValueError:
            raise _Fault("a chunk's digest is not hexadecimal") from None
        _need(len(digests) == count * digest_bytes, "a chunk's digest is not as long as its hash makes it")
        self._digests += digests
        return chunks_json(digests, digest_bytes)

    def _expect(self, text: bytes) -> None:
        _need(self._data.startswith(text, self._at), _NOT_CANONICAL)
        self._at += len(text)


_NOT_CANONICAL = "it is not in canonical form"


def _text(data: bytes) -> tuple[str, str]:
    """A text of JSON, quotes and all, and how it is written. Raises ``_Fault``."""
    try:
        text = json.loads(data) if b"\\" in data else data[1:-1].decode()
        written = json_text(text)
        written.encode()
    except ValueError:
        raise _Fault("a path is not UTF-8") from None
    return text, written
