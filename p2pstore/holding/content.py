"""Content to be registered, in files, in one that came as a stream, in memory: how it is looked at, hashed and held.

Nothing here asks the cluster: a register does (``p2pstore.holding.register``), and calls these in threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.memory.file_spans import FileSpan
from p2pstore.holding.publisher import NewObject
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent, hash_views
from p2pstore.objects.selection import Selection
from p2pstore.objects.source import SourceTree, scan
from p2pstore.objects.steps import Steps
from p2pstore.objects.tree_hash import hash_tree

Note = Callable[[str], None]
"""Told, from any thread, in a sentence what a user may want to know of a path that is registered."""

SHOWN_PATHS = 3
"""Of what was left out, so many paths are named."""


@dataclass
class How:
    """How to hash and publish, and where it is told what is being done."""

    hash_name: str
    chunk_size: int
    force: bool
    tags: tuple[str, ...] = ()
    steps: Steps = field(default_factory=Steps)
    selection: Selection = field(default_factory=Selection)
    note: Note | None = None
    private: Sequence[Path] = ()
    cancelled: threading.Event = field(default_factory=threading.Event)


class Content(Protocol):
    """What is to be registered. Its methods run in threads, in this order, and raise ``MooncakeError``."""

    size: int

    def scan(self, how: How) -> None:
        """Find out ``size``, in bytes."""

    def hash(self, how: How, threads: int, like: Manifest | None = None) -> Manifest:
        """Hash it on so many threads, cut as another manifest of the same files is, where one is given."""

    def made(self, name: str, manifest: Manifest) -> NewObject:
        """How it is held under ``name``."""


class FileContent:
    """A file or directory."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._path = path
        self._tree: SourceTree | None = None

    def scan(self, how: How) -> None:
        """See ``Content.scan``."""
        how.steps.begin("listing", unit="files")
        self._tree = scan(self._path, how.selection, how.steps.add, private=how.private)
        self.size = self._tree.size
        if how.note is not None:
            for text in _notes(self._tree):
                how.note(text)

    def hash(self, how: How, threads: int, like: Manifest | None = None) -> Manifest:
        """See ``Content.hash``."""
        assert self._tree is not None  # noqa: S101 - it was scanned
        how.steps.begin("hashing", self.size, "B")
        return hash_tree(
            self._tree,
            hash_name=how.hash_name,
            chunk_size=how.chunk_size,
            threads=threads,
            progress=how.steps.add,
            cancelled=how.cancelled,
            steps=how.steps,
            origins=like.columns.origins if like is not None else None,
        )

    def made(self, name: str, manifest: Manifest) -> NewObject:
        """See ``Content.made``."""
        assert self._tree is not None  # noqa: S101 - as above
        return NewObject(name, manifest, self._tree.root, self._tree.files)


class IncomingContent:
    """A file that was hashed as it came."""

    def __init__(self, root: Path, span: FileSpan, manifest: Manifest) -> None:
        self.size = manifest.size
        self._root = root
        self._span = span
        self._manifest = manifest

    def scan(self, how: How) -> None:
        """Nothing to find out."""

    def hash(self, how: How, threads: int, like: Manifest | None = None) -> Manifest:  # noqa: ARG002 - it was hashed
        """See ``Content.hash``."""
        return self._manifest

    def made(self, name: str, manifest: Manifest) -> NewObject:
        """See ``Content.made``."""
        return NewObject(name, manifest, self._root, (self._span,), kept=True)


class MemoryContent:
    """Views of memory by path."""

    def __init__(self, views: Mapping[str, Lent]) -> None:
        self.size = sum(len(view) for view in views.values())
        self._views = views

    def scan(self, how: How) -> None:
        """Nothing to find out."""

    def hash(self, how: How, threads: int, like: Manifest | None = None) -> Manifest:
        """See ``Content.hash``."""
        return hash_views(
            self._views,
            kind="file" if set(self._views) == {""} else "directory",
            hash_name=how.hash_name,
            chunk_size=how.chunk_size,
            threads=threads,
            cancelled=how.cancelled,
            origins=like.columns.origins if like is not None else None,
        )

    def made(self, name: str, manifest: Manifest) -> NewObject:
        """See ``Content.made``."""
        return NewObject(name, manifest, None, views=tuple(self._views.values()))


def _notes(tree: SourceTree) -> Iterator[str]:
    """What a user may not expect of what is registered."""
    if tree.left_out:
        yield f"{tree.root}: left out: {some(tree.left_out)}; --all takes that, too"
    if tree.private:
        yield f"{tree.root}: left out: {some(tree.private)}, which only this agent may read"
    if tree.foreign:
        number = len(tree.foreign)
        what = "one file is a link" if number == 1 else f"{number} files are links"
        yield f"{tree.root}: {what} to the outside, whose content is published: {some(tree.foreign)}"


def some(paths: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(paths) - SHOWN_PATHS
    return ", ".join(paths[:SHOWN_PATHS]) + (f" and {more} more" if more > 0 else "")
