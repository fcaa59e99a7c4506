"""What of an object is wanted: some of its files, a directory or a file in it, or a range of one file's bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from p2pstore.errors import NotInObject, UsageError
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.selection import Selection

_RANGE = re.compile(r"(?:bytes=)?([0-9]{0,20})-([0-9]{0,20})")


class ByteRange(NamedTuple):
    """Bytes from ``first`` to ``last``, both included, as HTTP and curl have it.

    Without a ``first`` the ``last`` so many bytes, without a ``last`` all from ``first`` on.
    """

    first: int | None
    last: int | None

    def within(self, size: int) -> tuple[int, int]:
        """Where it begins and ends in a file of ``size`` bytes. Raises ``UsageError`` where it has none of them."""
        if self.first is None:
            begin, end = max(0, size - (self.last or 0)), size
        else:
            begin, end = self.first, size if self.last is None else min(size, self.last + 1)
        if begin >= end:
            counted = "1 byte" if size == 1 else f"{size} bytes"
            raise UsageError(detail=f"the range {self} has no byte of a file of {counted}")
        return begin, end

    def __str__(self) -> str:
        return f"{'' if self.first is None else self.first}-{'' if self.last is None else self.last}"


def parse_range(text: str) -> ByteRange:
    """A range from ``FIRST-LAST``, ``FIRST-`` or ``-COUNT``. Raises ``ValueError``."""
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[2]):
        raise ValueError(f"{text!r} is no range; write FIRST-LAST, FIRST- or -COUNT, in bytes")
    first, last = (int(part) if part else None for part in found.groups())
    if first is not None and last is not None and last < first:
        raise ValueError(f"{text!r} ends before it begins")
    return ByteRange(first, last)


@dataclass(frozen=True)
class Choice:
    """Of an object, what is at the path ``inside`` (all of it where that is empty) and taken by the patterns.

    Patterns are for paths from there. ``range`` is wanted of the one file that is meant then.
    """

    inside: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    range: ByteRange | None = None

    def __bool__(self) -> bool:
        return bool(self.inside or self.include or self.exclude or self.range)

    def selection(self) -> Selection:
        """Its patterns. Raises ``UsageError`` for one that is none."""
        return Selection(self.include, self.exclude, everything=True)


class Chosen(NamedTuple):
    """The wanted files by their numbers, and their paths (one is empty where it is a single file).

    ``directories`` are those that are to be there without a file in them.
    """

    kind: str
    numbers: Sequence[int]
    paths: Sequence[str]
    directories: tuple[str, ...] = ()


def choose(manifest: Manifest, choice: Choice, name: str) -> Chosen:
    """The files of an object that are wanted, in its order.

    Raises ``NotInObject`` where there are none, and ``UsageError`` for a choice that makes no sense of it.
    """
    selection = choice.selection()
    paths = manifest.columns.paths
    inside = choice.inside.strip("/")
    single = paths.index(inside) if inside in paths else -1
    if single >= 0:
        if choice.include or choice.exclude:
            what = f"{inside!r} of {name}" if inside else name
            raise UsageError(detail=f"{what} is a single file; patterns choose among the files of a directory")
        return Chosen("file", [single], [""])
    prefix = f"{inside}/" if inside else ""
    below = [n for n, path in enumerate(paths) if path.startswith(prefix)]
    empty = [d for d in manifest.directories if d.startswith(prefix) or d == inside]
    if not below and not empty:
        raise NotInObject(name=name, wanted=f"is called {inside!r}")
    if choice.range is not None:
        what = f"{inside!r} of {name}" if inside else name
        raise UsageError(detail=f"{what} is a directory; a range is of one file, as in {name}/PATH")
    found = [(n, paths[n][len(prefix) :]) for n in below]
    found = [(n, path) for n, path in found if takes(selection, path)]
    kept = [d[len(prefix) :] for d in empty if d != inside and selection.keeps_empty]
    kept = [d for d in kept if not _excluded(selection, d)]
    if not found and (choice.include or choice.exclude):
        given = [f"--include {p!r}" for p in choice.include] + [f"--exclude {p!r}" for p in choice.exclude]
        raise NotInObject(name=name, wanted=f"is taken by {' '.join(given)}")
    return Chosen("directory", [n for n, _ in found], [path for _, path in found], tuple(kept))


def takes(selection: Selection, path: str) -> bool:
    """Whether a file is taken, and no directory that it is in is left out."""
    return selection.takes(path, directory=False) and not _excluded(selection, path.rpartition("/")[0])


def _excluded(selection: Selection, directory: str) -> bool:
    """Whether a directory, or one that it is in, is left out."""
    return bool(directory) and selection.excludes(directory, directory=True)
