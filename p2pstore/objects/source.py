"""What a user registers: a file or a directory, scanned, hashed in parallel, and watched for changes by its stamps."""

from __future__ import annotations

import errno
import logging
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.files.stamps import STAMP_BYTES, FileStamp, pack_lasting, pack_stamp
from engine.files.system import system
from engine.memory.file_spans import FileSpan, FileSpans
from engine.memory.reading import OWN_LIMITS, PASSING, read_some
from p2pstore.errors import BadSource, PathNotFound, SourceChanged, StorageError, UsageError
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.manifest_reader import MAX_FILES, MAX_OBJECT_BYTES
from p2pstore.objects.names import sibling_fault
from p2pstore.objects.private import Private
from p2pstore.objects.selection import Selection, literal

log = logging.getLogger(__name__)

_USER = os.geteuid()

LOOKED_AT_ONCE = 256
"""Files that are looked at before it is told how many."""

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""For opening a source. O_NONBLOCK: should a FIFO stand there by now, opening it must not wait for a writer."""

_LOOK_AGAIN = PASSING | {errno.ESTALE}


@dataclass(frozen=True)
class SourceTree:
    """A scanned path: its files in manifest order, each with the stamp that it had, and its empty directories."""

    root: Path
    """Where they lie: no link, which may be changed to lead to another version tomorrow."""
    kind: str
    files: FileSpans
    modes: array[int]
    directories: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """What was left out by default, below which nothing was looked at."""
    foreign: tuple[str, ...] = ()
    """Files that are links to files outside of ``root``."""
    private: tuple[str, ...] = ()
    """What nobody is to have."""

    @property
    def paths(self) -> Sequence[str]:
        """The files' paths in the object."""
        return self.files.paths

    @cached_property
    def size(self) -> int:
        """Bytes of all files. Progress is told with it for every chunk, so that it is summed up once."""
        return sum(self.files.sizes)


def scan(
    root: Path,
    selection: Selection = Selection(),  # noqa: B008 - it is frozen
    listed: Callable[[int], object] | None = None,
    *,
    private: Sequence[Path] = (),
) -> SourceTree:
    """What is at ``root``, as far as ``selection`` takes it. Links to files are followed, and ``root`` in any case.

    ``listed`` is called with the number of entries found since the last call. What is ``private`` is never taken.

    Raises ``PathNotFound``, ``BadSource`` (a device, a bad name, a link that leads nowhere, too much),
    ``StorageError``, or ``SourceChanged`` when something goes away meanwhile.
    """
    root, status = _resolved(root)
    kept_back = Private(private)
    kept_back.check(root, status)
    if stat.S_ISREG(status.st_mode):
        _check_readable(str(root), "", status)
        one = _Found(root)
        one.add("", status)
        return _checked(SourceTree(root, "file", *one.columns(), ()))
    if not stat.S_ISDIR(status.st_mode):
        raise BadSource(path=root, detail=_kind(status.st_mode))
    walk = _Walk(root, selection, listed, kept_back)
    files, modes = walk.files().columns()
    directories = tuple(sorted(walk.empty)) if selection.keeps_empty else ()
    if not files and (selection.include or walk.excluded):
        raise BadSource(path=root, detail=_none_left(selection, excluded=walk.excluded))
    told = tuple(walk.left_out), tuple(walk.foreign), tuple(walk.private)
    return _checked(SourceTree(root, "directory", files, modes, directories, *told))


def _none_left(selection: Selection, *, excluded: bool) -> str:
    """Why no file of a directory is taken, of which patterns say what to take."""
    fits = f" fits {_listed(selection.include)}" if selection.include else ""
    spared = f" is left by {_listed(selection.exclude)}" if excluded else ""
    return f"no file in it{fits}{' and' if fits and spared else ''}{spared}"


def _listed(patterns: Sequence[str]) -> str:
    return ", ".join(map(repr, patterns))


def named_files(root: Path, manifest: Manifest) -> SourceTree:
    """The files at ``root`` that the manifest names, as they are now. Raises ``SourceChanged`` or ``StorageError``."""
    found = _Found(root)
    columns = manifest.columns
    for inside, size in zip(columns.paths, columns.sizes, strict=True):
        path = f"{root}/{inside}" if inside else str(root)
        try:
            status = system.stat(path)
        except OSError as error:
            raise unreadable(path, "", error) from None
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise SourceChanged(path=path, detail="it is no file of that size")
        found.add(inside, status)
    return SourceTree(root, manifest.kind, *found.columns(), manifest.directories)


class _Found:
    """Files as they are found, in any order."""

    def __init__(self, root: Path) -> None:
        self.paths: list[str] = []
        self._root = str(root)
        self._sizes, self._modes, self._stamps = array("Q"), array("H"), bytearray()

    def add(self, path: str, status: os.stat_result) -> None:
        """One more."""
        self.paths.append(path)
        self._sizes.append(status.st_size)
        self._modes.append(status.st_mode & 0o777)
        self._stamps += pack_lasting(status, f"{self._root}/{path}" if path else self._root)

    def columns(self) -> tuple[FileSpans, array[int]]:
        """All of them, sorted; and their modes."""
        order = sorted(range(len(self.paths)), key=self.paths.__getitem__)
        paths = tuple(map(self.paths.__getitem__, order))
        sizes = array("Q", map(self._sizes.__getitem__, order))
        modes = array("H", map(self._modes.__getitem__, order))
        stamps = bytearray()
        for at in order:
            stamps += self._stamps[at * STAMP_BYTES : (at + 1) * STAMP_BYTES]
        return FileSpans(self._root, paths, sizes, bytes(stamps)), modes


def _resolved(root: Path) -> tuple[Path, os.stat_result]:
    """The path, or where it leads if it is a link, with its status."""
    try:
        status = system.lstat(root)
        if not stat.S_ISLNK(status.st_mode):
            return root, status
    except (FileNotFoundError, NotADirectoryError):
        raise PathNotFound(path=root) from None
    except (OSError, ValueError) as error:
        raise StorageError(path=root, detail=words(error)) from None
    try:
        target = os.path.realpath(root, strict=True)
        return Path(target), system.lstat(target)
    except OSError as error:
        fault = _link_fault(str(root), error)
        raise (BadSource if fault else StorageError)(path=root, detail=fault or words(error)) from None


def _checked(tree: SourceTree) -> SourceTree:
    if tree.size > MAX_OBJECT_BYTES:
        raise BadSource(path=tree.root, detail=f"it is larger than {MAX_OBJECT_BYTES} bytes")
    return tree


class _Walk:
    """A look at everything below a directory."""

    def __init__(
        self,
        root: Path,
        selection: Selection,
        listed: Callable[[int], object] | None,
        private: Private,
    ) -> None:
        self.empty: list[str] = []
        self.private: list[str] = []
        self._private = private
        self.left_out: list[str] = []
        self.foreign: list[str] = []
        self.excluded = False
        """Whether anything was, by the user's patterns."""
        self._root = root
        self._real_root = os.path.join(os.path.realpath(root), "")
        self._selection = selection
        self._listed = listed
        self._waiting = [(str(root), "")]

    def files(self) -> _Found:
        """Every file, with its status: a link's is that of what it leads to."""
        found = _Found(self._root)
        while self._waiting:
            directory, prefix = self._waiting.pop()
            for path, status in self._entries(directory, prefix):
                found.add(path, status)
                if len(found.paths) > MAX_FILES:
                    raise self._too_many()
            if len(self.empty) > MAX_FILES:
                raise self._too_many()
        return found

    def _too_many(self) -> BadSource:
        return BadSource(path=self._root, detail=f"it has more than {MAX_FILES} files, or empty directories")

    def _entries(self, directory: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """The files of one directory; its directories are left to wait."""
        try:
            entries = list(system.scandir(directory))
        except OSError as error:
            raise unreadable(directory, prefix[:-1], error) from None
        if not entries and prefix:
            self.empty.append(prefix[:-1])
        if self._listed is not None:
            self._listed(len(entries))
        for entry in entries:
            path = prefix + entry.name
            is_directory = _is_directory(entry, path)
            if not self._selection.takes(path, directory=is_directory):
                self.excluded = self.excluded or self._selection.excludes(path, directory=is_directory)
                continue
            if self._selection.leaves_out(path, directory=is_directory):
                self.left_out.append(path)
                continue
            fault = sibling_fault(path, prefix)
            if fault:
                raise BadSource(path=repr(entry.path), detail=f"its name {fault}")
            if is_directory:
                self._descend(entry.path, path)
                continue
            status = self._status(entry, path)
            if self._kept_back(path, status):
                continue
            _check_readable(entry.path, path, status)
            yield path, status

    def _descend(self, directory: str, path: str) -> None:
        if self._private.has_directory(directory):
            self.private.append(path)
        else:
            self._waiting.append((directory, f"{path}/"))

    def _kept_back(self, path: str, status: os.stat_result) -> bool:
        if not self._private.has(status):
            return False
        self.private.append(path)
        if self.foreign[-1:] == [path]:  # nothing of it is published
            self.foreign.pop()
        return True

    def _status(self, entry: os.DirEntry[str], path: str) -> os.stat_result:
        """The status of a file, or of the one that a link leads to."""
        try:
            status = system.lstat(entry.path)
            if stat.S_ISLNK(status.st_mode):
                status = self._followed(entry.path, path, status)
        except OSError as error:
            raise unreadable(entry.path, path, error) from None
        if not stat.S_ISREG(status.st_mode):
            raise BadSource(path=entry.path, detail=_kind(status.st_mode), pattern=literal(path))
        return status

    def _followed(self, link: str, path: str, about: os.stat_result) -> os.stat_result:
        """The status of what a link leads to. Raises ``BadSource`` and ``OSError``."""
        try:
            target = os.path.realpath(link, strict=True)
            status = system.lstat(target)
        except OSError as error:
            fault = _link_fault(link, error)
            if not fault:
                raise
            raise BadSource(path=link, detail=fault, pattern=literal(path)) from None
        if stat.S_ISDIR(status.st_mode):
            raise BadSource(path=link, detail="it is a link to a directory", pattern=literal(path))
        if not target.startswith(self._real_root):
            # Whoever may write here must not publish with our rights what they may not read themselves.
            if about.st_uid not in {os.geteuid(), 0, status.st_uid}:
                detail = f"it is another user's link to a file that is not theirs, {target}"
                raise BadSource(path=link, detail=detail, pattern=literal(path))
            self.foreign.append(path)
        return status


def _is_directory(entry: os.DirEntry[str], inside: str) -> bool:
    """Whether it is one, and no link to one; where the file system does not say so in its listing, it is looked at."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError as error:
        raise unreadable(entry.path, inside, error) from None


def _check_readable(path: str, inside: str, status: os.stat_result) -> None:
    """Raise ``StorageError`` where a file may not be read, ``BadSource`` where its size is untrue (/proc, some FUSE).

    ``inside`` is its path in the object, or empty for the object itself.
    """
    own = status.st_mode & stat.S_IRUSR and status.st_uid == _USER  # of a hundred thousand, asking takes a second
    if status.st_size and (own or system.access(path, os.R_OK)):
        return
    pattern = {"pattern": literal(inside)} if inside else {}
    try:
        descriptor = system.open(path, OPEN_FLAGS)
    except OSError as error:
        raise StorageError(path=path, detail=words(error), **pattern) from None
    try:
        filled = not status.st_size and system.pread(descriptor, 1, 0)
    except OSError as error:
        log.info("%s, which is empty, cannot be read: %s", path, error.strerror)
        filled = False
    finally:
        system.close(descriptor)
    if filled:
        raise BadSource(path=path, detail="its file system says that it is empty, and it is not", **pattern)


def unreadable(path: str, inside: str, error: OSError) -> SourceChanged | StorageError:
    """What it means that something, which was there a moment ago, cannot be opened or looked at.

    ``inside`` is its path in the object, or empty for the object itself.
    """
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
        return SourceChanged(path=path, detail=words(error))
    if inside:
        return StorageError(path=path, detail=words(error), pattern=literal(inside))
    return StorageError(path=path, detail=words(error))


def _link_fault(link: str, error: OSError) -> str:
    """Why a link leads nowhere; empty where something else is in the way."""
    if error.errno == errno.ELOOP:
        return "it is a link that leads in a circle"
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return f"it is a link to {_target(link)}, which does not exist"
    return ""


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return "something"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return f"it is {kinds.get(stat.S_IFMT(mode), 'something else')}, neither a file nor a directory"


def reading_fault(path: str, offset: int) -> str:
    """What keeps a byte of a file from being read, in a few words; empty when nothing does, or a limit of our own."""
    try:
        descriptor = system.open(path, OPEN_FLAGS)
        try:
            read_some(descriptor, memoryview(bytearray(1)), offset)
        finally:
            system.close(descriptor)
    except OSError as error:
        return "" if error.errno in OWN_LIMITS else f"it cannot be read: {words(error)}"
    return ""


def changed(spans: Sequence[FileSpan], looked: Callable[[int], object] | None = None) -> Iterator[int]:
    """The numbers of those whose stamp is not to the bit what is there now; ``stamp_fault`` says whether it matters.

    ``looked`` is called with the number of files looked at since the last call.
    """
    if not isinstance(spans, FileSpans):
        yield from range(len(spans))
        return
    for number in range(len(spans)):
        try:
            same = pack_stamp(system.stat(spans.path(number))) == spans.stamp(number)
        except OSError:
            same = False
        if looked is not None and number % LOOKED_AT_ONCE == 0:
            looked(LOOKED_AT_ONCE)
        if not same:
            yield number


def stamp_fault(span: FileSpan) -> str:
    """How the file at ``span.path`` differs from its stamp, in a few words; empty when it does not."""
    return look(span)[0]


def look(span: FileSpan) -> tuple[str, bool]:
    """As ``stamp_fault``; and whether the file was touched, so that its content should be looked at."""
    if span.stamp is None:
        raise UsageError(detail=f"{span.path} has no stamp to compare with")
    try:
        now = stamp_now(span.path)
    except OSError as error:
        return "" if error.errno in OWN_LIMITS else words(error), False
    if span.stamp.fits(now):
        return "", span.stamp.touched(now)
    if now.size != span.stamp.size:
        return f"its size went from {span.stamp.size} to {now.size} bytes", False
    if (now.dev, now.inode) != (span.stamp.dev, span.stamp.inode):
        return "another file took its place", False
    return "it was written to", False


def renumbered(spans: Sequence[FileSpan]) -> bool:
    """Whether all that differs of these files is their inode numbers: what they hold tells whether they are others."""
    found = False
    for span in spans:
        try:
            now = stamp_now(span.path)
        except OSError:
            return False
        if span.stamp is None or not (span.stamp.fits(now) or span.stamp.renumbered(now)):
            return False
        found = found or not span.stamp.fits(now)
    return found


def stamp_now(path: str) -> FileStamp:
    """The stamp of what is at a path; after an error that may pass it is looked at again. Raises ``OSError``."""
    try:
        return FileStamp.of(system.stat(path))
    except OSError as error:
        if error.errno not in _LOOK_AGAIN:
            raise
        return FileStamp.of(system.stat(path))
