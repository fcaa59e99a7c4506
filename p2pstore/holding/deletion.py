"""Deletes the files of a copy, and nothing else: each file is known again before and while it goes.

What a path leads to may be another thing at each look. So the directory is reached from the root without following a
link, and each file by its name in its open directory. A file is first given a name that nobody knows, then compared
with the stamp of what this agent wrote, and only then removed; one that is another by then gets its name back. What is
not of the object stays, and so does each directory that is not empty.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.files.stamps import FileStamp
from engine.files.system import system
from engine.memory.file_spans import FileSpan
from p2pstore.holding.copy_note import CopyNote, seal
from p2pstore.objects.file_system import words

if TYPE_CHECKING:
    from typing_extensions import Self

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""It may be entered, and need not be readable."""

MAX_OPEN = 256
"""Directories that are kept open at a time."""


class NotTheSame(Exception):
    """Something is not what this agent wrote; the text says what, as people read it."""


@dataclass(frozen=True)
class Deleted:
    """What went: files and their bytes; ``left`` says why the rest did not, empty where nothing is left."""

    files: int = 0
    bytes: int = 0
    left: str = ""
    removed: bool | None = False
    """Whether the object's name went with it; None where that is not known yet."""


def check(root: Path, spans: Sequence[FileSpan], note: CopyNote) -> None:
    """Raise ``NotTheSame`` unless each file is there as this agent wrote it, and may be deleted. Changes nothing."""
    if not note.wrote:
        raise NotTheSame("this agent did not write its files, or cannot know them again")
    if seal(spans) != note.wrote:
        raise NotTheSame("its files were touched or changed since this agent wrote them")
    with _Tree(root, spans, note) as tree:
        for number in range(len(spans)):
            tree.check(number)


def delete(root: Path, spans: Sequence[FileSpan], directories: Collection[str], note: CopyNote) -> Deleted:
    """Delete the files, then those of the object's ``directories`` (relative paths) that are empty.

    It ends at the first file that is not the same, or cannot be deleted. Raises as ``check``, before any change.
    """
    check(root, spans, note)
    files = size = 0
    try:
        with _Tree(root, spans, note) as tree:
            for number, span in enumerate(spans):
                tree.delete(number)
                files, size = files + 1, size + span.size
            tree.remove_directories(directories)
    except NotTheSame as error:
        return Deleted(files, size, str(error))
    except OSError as error:
        return Deleted(files, size, f"{error.filename or root}: {words(error)}")
    return Deleted(files, size)


class _Tree:
    """The files below one root, by descriptors of their directories."""

    def __init__(self, root: Path, spans: Sequence[FileSpan], note: CopyNote) -> None:
        self._root = root
        self._spans = spans
        self._note = note
        self._open: dict[str, int] = {}
        self._above = -1

    def __enter__(self) -> Self:
        """Open the directory above the root. Raises ``NotTheSame``."""
        if os.path.realpath(self._root) != self._note.real:
            raise NotTheSame(f"{self._root} leads elsewhere than when it was written")
        above = Path(self._note.real).parent
        descriptor = system.open("/", _DIRECTORY)
        try:
            for part in above.parts[1:]:
                inner = self._enter(descriptor, part, above)
                system.close(descriptor)
                descriptor = inner
        except BaseException:
            system.close(descriptor)
            raise
        self._above = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (*self._open.values(), self._above):
            system.close(descriptor)
        self._open.clear()

    def check(self, number: int) -> None:
        """Raise ``NotTheSame`` where a file is not what it was, or may not be deleted."""
        self._check(*self._place(number))

    def _check(self, directory: int, name: str, span: FileSpan) -> None:
        found = self._look(directory, name, span)
        if found.st_nlink != 1:
            raise NotTheSame(f"{span.path} has another name, too: it is a hard link")
        if FileStamp.of(found).ctime_ns != self._stamp(span).ctime_ns:
            raise NotTheSame(f"{span.path} was touched since this agent wrote it")
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory):
            raise NotTheSame(f"{Path(span.path).parent} may not be written to")

    def delete(self, number: int) -> None:
        """Delete a file. Raises ``NotTheSame`` where it is another; that has its name then. Raises ``OSError``."""
        directory, name, span = self._place(number)
        self._check(directory, name, span)
        hidden = f".{os.urandom(8).hex()}.deleted"
        system.rename(name, hidden, src_dir_fd=directory, dst_dir_fd=directory)
        try:
            self._look(directory, hidden, span)
        except NotTheSame:
            self._put_back(directory, hidden, name, span)
            raise
        system.unlink(hidden, dir_fd=directory)

    def _put_back(self, directory: int, hidden: str, name: str, span: FileSpan) -> None:
        """Give a file its name again, unless another has it by now. Raises ``NotTheSame``."""
        try:
            system.link(hidden, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            where = Path(span.path).parent / hidden
            said = f"{span.path} was replaced meanwhile, and what replaced it is now {where}: {words(error)}"
            raise NotTheSame(said) from None
        system.unlink(hidden, dir_fd=directory)

    def remove_directories(self, directories: Collection[str]) -> None:
        """Remove those that are empty, the inner ones first, and the root where this agent made it."""
        for path in sorted(directories, key=lambda each: each.count("/"), reverse=True):
            self._close_many()
            with contextlib.suppress(NotTheSame, OSError):
                above, _, name = path.rpartition("/")
                system.rmdir(name, dir_fd=self._directory(above))
        if self._note.own_root and "" in self._open:
            mine, name = system.fstat(self._open[""]), Path(self._note.real).name
            with contextlib.suppress(OSError):
                there = system.stat(name, dir_fd=self._above, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                    system.rmdir(name, dir_fd=self._above)

    def _look(self, directory: int, name: str, span: FileSpan) -> os.stat_result:
        """The status of a file that is the one of ``span``. Raises ``NotTheSame``."""
        try:
            found = system.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            raise NotTheSame(f"{span.path}: {words(error)}") from None
        stamp = FileStamp.of(found)
        if not stat.S_ISREG(found.st_mode) or stamp != self._stamp(span):
            raise NotTheSame(f"{span.path} is not the file that this agent wrote, or was changed since")
        return found

    @staticmethod
    def _stamp(span: FileSpan) -> FileStamp:
        assert span.stamp is not None  # noqa: S101 - a seal was made of it
        return span.stamp

    def _place(self, number: int) -> tuple[int, str, FileSpan]:
        """The open directory of a file, and its name there."""
        self._close_many()
        span = self._spans[number]
        inside = os.path.relpath(span.path, self._root) if span.path != str(self._root) else ""
        if not inside:
            return self._above, Path(self._note.real).name, span
        above, _, name = inside.rpartition("/")
        return self._directory(above), name, span

    def _close_many(self) -> None:
        """Where many are open, close all but the root: what is in use is opened again."""
        if len(self._open) > MAX_OPEN:
            for path in [path for path in self._open if path]:
                system.close(self._open.pop(path))

    def _directory(self, path: str) -> int:
        """A directory below the root, which is "". Raises ``NotTheSame``."""
        known = self._open.get(path)
        if known is None:
            above, _, name = path.rpartition("/")
            where = self._directory(above) if path else self._above
            known = self._enter(where, name if path else Path(self._note.real).name, self._root / path)
            self._open[path] = known
        return known

    @staticmethod
    def _enter(directory: int, name: str, shown: Path) -> int:
        try:
            return system.open(name, _DIRECTORY, dir_fd=directory)
        except OSError as error:
            raise NotTheSame(f"{shown} is not the directory that it was: {words(error)}") from None


def shared_inodes(mine: Sequence[FileSpan], others: Iterator[tuple[str, Iterator[tuple[int, int]]]]) -> str:
    """Who else, of those that are named with the inodes of their files, has one of ``mine``; empty where nobody has."""
    own = {(span.stamp.dev, span.stamp.inode) for span in mine if span.stamp is not None}
    return next((name for name, theirs in others if not own.isdisjoint(theirs)), "")
