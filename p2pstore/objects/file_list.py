"""The files of a manifest, as columns: each costs its path and some forty bytes, and the garbage collector no time.

What is asked for by its number is made then, a ``FileEntry``; whoever goes through all of them takes the columns.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import overload

SLICE = 500
"""Files whose JSON is made at once: it takes about a millisecond, and other threads may run in between."""

json_text = json.JSONEncoder(ensure_ascii=False).encode
"""The canonical JSON of a text."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path in the object, its size in bytes, its permission bits, its chunks' digests, and its origin.

    ``p2pstore.objects.cutting`` says what that is.
    """

    path: str
    size: int
    mode: int
    chunks: tuple[bytes, ...]
    origin: int = 0


class FileList(Sequence[FileEntry]):
    """Files in manifest order. ``first_chunks`` has one entry more, the number of all chunks.

    ``digests`` are those of all chunks, end to end, each of ``digest_bytes``. ``origins`` has those that are not 0, by
    the numbers of their files.
    """

    __slots__ = ("digest_bytes", "digests", "first_chunks", "modes", "origins", "paths", "sizes")

    def __init__(
        self,
        paths: Sequence[str],
        sizes: array[int],
        modes: array[int],
        first_chunks: array[int],
        digests: bytes,
        digest_bytes: int,
        origins: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.paths = paths
        self.sizes = sizes
        self.modes = modes
        self.first_chunks = first_chunks
        self.digests = digests
        self.digest_bytes = digest_bytes
        self.origins = origins

    @classmethod
    def of(cls, entries: Iterable[FileEntry]) -> FileList:
        """The same files, as columns. Their digests must be of one length."""
        paths: list[str] = []
        sizes, modes, first_chunks = array("Q"), array("H"), array("Q", [0])
        digests = bytearray()
        digest_bytes = 0
        origins: dict[int, int] = {}
        for number, entry in enumerate(entries):
            if entry.origin:
                origins[number] = entry.origin
            paths.append(entry.path)
            sizes.append(entry.size)
            modes.append(entry.mode)
            first_chunks.append(first_chunks[-1] + len(entry.chunks))
            for digest in entry.chunks:
                digest_bytes = digest_bytes or len(digest)
                if len(digest) != digest_bytes:
                    raise ValueError("digests of several lengths")
                digests += digest
        return cls(tuple(paths), sizes, modes, first_chunks, bytes(digests), digest_bytes, origins)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> FileEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FileEntry]: ...
    def __getitem__(self, index: int | slice) -> FileEntry | Sequence[FileEntry]:
        if isinstance(index, slice):
            return tuple(map(self._entry, range(*index.indices(len(self)))))
        return self._entry(range(len(self))[index])

    def __iter__(self) -> Iterator[FileEntry]:
        return map(self._entry, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FileList):
            return self._columns() == other._columns()
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    def __hash__(self) -> int:
        return hash((len(self), self.digests))

    def __repr__(self) -> str:
        return f"FileList({list(self)!r})"

    def digest(self, chunk: int) -> bytes:
        """The digest of the chunk of that number."""
        return self.digests[chunk * self.digest_bytes : (chunk + 1) * self.digest_bytes]

    def all_digests(self) -> Iterator[bytes]:
        """The digest of every chunk, in order."""
        return map(self.digest, range(self.first_chunks[-1]))

    def json(self) -> Iterator[bytes]:
        """Their canonical JSON, in pieces to be joined."""
        before = "["
        for first in range(0, len(self), SLICE):
            yield (before + ",".join(map(self._json, range(first, min(first + SLICE, len(self)))))).encode()
            before = ","
        yield b"[]" if before == "[" else b"]"

    def _json(self, index: int) -> str:
        first, last = self.first_chunks[index], self.first_chunks[index + 1]
        chunks = chunks_json(self.digests[first * self.digest_bytes : last * self.digest_bytes], self.digest_bytes)
        origin = self.origins.get(index, 0) if self.origins else 0
        return entry_json(chunks, self.modes[index], json_text(self.paths[index]), self.sizes[index], origin)

    def _entry(self, index: int) -> FileEntry:
        chunks = tuple(map(self.digest, range(self.first_chunks[index], self.first_chunks[index + 1])))
        return FileEntry(self.paths[index], self.sizes[index], self.modes[index], chunks, self.origins.get(index, 0))

    def _columns(self) -> tuple[object, ...]:
        return tuple(self.paths), self.sizes, self.modes, self.first_chunks, self.digests, dict(self.origins)


def entry_json(chunks: str, mode: int, path: str, size: int, origin: int = 0) -> str:
    """The canonical JSON of one file; ``chunks`` and ``path`` are JSON already."""
    if origin:
        return f'{{"chunks":[{chunks}],"mode":{mode},"origin":{origin},"path":{path},"size":{size}}}'
    return f'{{"chunks":[{chunks}],"mode":{mode},"path":{path},"size":{size}}}'


def chunks_json(digests: bytes, digest_bytes: int) -> str:
    """The canonical JSON of one file's digests, without the brackets."""
    text = digests.hex()
    width = 2 * digest_bytes
    if len(text) > width:
        text = '","'.join([text[at : at + width] for at in range(0, len(text), width)])
    return f'"{text}"' if text else ""
