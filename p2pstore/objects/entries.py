"""What is at a path in an object, as one who looks into a directory sees it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from p2pstore.errors import NotInObject
from p2pstore.objects.manifest import Manifest

FILE, DIRECTORY = "file", "directory"


class Entry(NamedTuple):
    """A file or a directory: its path in the object, and of a file its size, its number, and where its chunks begin.

    ``origin`` is as in ``p2pstore.objects.cutting``.
    """

    path: str
    kind: str
    size: int = 0
    number: int = -1
    origin: int = 0


def entry_at(manifest: Manifest, inside: str, name: str) -> Entry:
    """What is at the path ``inside``; empty for all of the object. Raises ``NotInObject``."""
    columns = manifest.columns
    paths = columns.paths
    if inside in paths:
        return _file(manifest, paths.index(inside))
    below = f"{inside}/" if inside else ""
    if any(path.startswith(below) for path in paths) or inside in manifest.directories or not inside:
        return Entry(inside, DIRECTORY)
    if any(directory.startswith(below) for directory in manifest.directories):
        return Entry(inside, DIRECTORY)
    raise NotInObject(name=name, wanted=f"is called {inside!r}")


def entries_in(manifest: Manifest, inside: str, *, recursive: bool = False) -> list[Entry]:
    """What is in the directory ``inside``, by path; with ``recursive``, below it, too."""
    below = f"{inside}/" if inside else ""
    found: dict[str, Entry] = {}
    for number, path in enumerate(manifest.columns.paths):
        if not path.startswith(below):
            continue
        for directory in _between(path, below):
            found.setdefault(directory, Entry(directory, DIRECTORY))
            if not recursive:
                break
        else:
            found[path] = _file(manifest, number)
    for directory in manifest.directories:
        if directory.startswith(below):
            for each in _between(f"{directory}/", below):
                found.setdefault(each, Entry(each, DIRECTORY))
                if not recursive:
                    break
    return [found[path] for path in sorted(found)]


def _between(path: str, below: str) -> Iterator[str]:
    """The directories that a path is in, from the first below ``below`` on."""
    at = len(below)
    while (at := path.find("/", at) + 1) > 0:
        yield path[: at - 1]


def _file(manifest: Manifest, number: int) -> Entry:
    columns = manifest.columns
    return Entry(columns.paths[number], FILE, columns.sizes[number], number, columns[number].origin)
