"""A manifest's bytes, read: checked in every respect, since they may come from a peer that means ill. Pure.

As there is one form of each manifest (``p2pstore.objects.manifest``), what is read is compared with what it would be
written as; so two manifests with other bytes are never the same object.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterator

from p2pstore.errors import BadManifest
from p2pstore.objects.choices import DIGEST_BYTES, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from p2pstore.objects.cutting import chunk_count
from p2pstore.objects.file_list import FileList, chunks_json, entry_json, json_text
from p2pstore.objects.manifest import FORMAT, FORMAT_ORIGINS, MIB, Manifest
from p2pstore.objects.names import tree_fault

MAX_MANIFEST_BYTES = 256 * MIB
MAX_FILES = 1_000_000
MAX_MODE = 0o777
MAX_OBJECT_BYTES = 1 << 46
"""64 TiB: an object is one range of the 47-bit address space."""


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
