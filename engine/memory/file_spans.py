"""Which files a buffer consists of: one span a file, or a hundred thousand as columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from engine.files.stamps import STAMP_BYTES, FileStamp


@dataclass(frozen=True, slots=True)
class FileSpan:
    """``size`` bytes of the file at ``path``, from its start. Without a stamp, changes go unnoticed."""

    path: str
    size: int
    stamp: FileStamp | None = None


class FileSpans(Sequence[FileSpan]):
    """The spans of files below one directory, each made when it is asked for. It is never changed.

    ``stamps`` are those of all files, end to end, packed; empty where there are none.
    """

    __slots__ = ("paths", "root", "sizes", "stamps")

    def __init__(self, root: str, paths: Sequence[str], sizes: array[int], stamps: bytes = b"") -> None:
        """``paths`` are relative; an empty one is ``root`` itself."""
        self.root = root
        self.paths = paths
        self.sizes = sizes
        self.stamps = stamps

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> FileSpan: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FileSpan]: ...
    def __getitem__(self, index: int | slice) -> FileSpan | Sequence[FileSpan]:
        if isinstance(index, slice):
            return tuple(map(self._span, range(*index.indices(len(self)))))
        return self._span(range(len(self))[index])

    def __iter__(self) -> Iterator[FileSpan]:
        return map(self._span, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((self.root, len(self)))

    def __repr__(self) -> str:
        return f"FileSpans({list(self)!r})"

    def path(self, index: int) -> str:
        """Where the file of that number lies."""
        path = self.paths[index]
        return f"{self.root}/{path}" if path else self.root

    def stamp(self, index: int) -> bytes:
        """Its stamp, packed; empty where there is none."""
        return self.stamps[index * STAMP_BYTES : (index + 1) * STAMP_BYTES]

    def _span(self, index: int) -> FileSpan:
        stamp = self.stamp(index)
        return FileSpan(self.path(index), self.sizes[index], FileStamp.unpack(stamp) if stamp else None)
