"""The files of a partial form: held open while they are written, and compared in the end with what we left in them.

A file is written through a descriptor that was opened once, not by its path each time: whatever happens to the name,
the bytes go where they went before. What is looked at before the files get their final name is whether the name still
stands for the file that was written, and whether somebody else can have written to it. Where that cannot be ruled out
the file is *in doubt*, and is to be hashed again.
"""

from __future__ import annotations

import os
import stat
import threading
from array import array
from collections import Counter, OrderedDict
from pathlib import Path

from engine.files.refusals import refused
from engine.files.stamps import FileStamp, numbers_last, pack_lasting
from engine.files.system import system
from engine.files.writing import write_at
from p2pstore.errors import ForeignFile, StorageError
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.foreign_writes import ForeignWrites, being_written

MAX_OPEN = 64
"""Files of one get that stay open between writes: 16 gets at once must get along with 1024 descriptors."""

_WORD = 0xFFFFFFFFFFFFFFFF
"""Inode numbers are kept as 64 bits without a sign."""

SMALL_BYTES = 64 * 1024
"""A file of no more, and written whole, is not kept open for what may come next."""

MAX_WATCHED = 1000
"""Files of an object with more are small, and so open for too short a time to watch for other writers."""


class _File:
    """One that is open, or is being opened. ``lock`` guards ``fd`` and ``users``: to open a file may take for ever.

    ``written``: we may have written to it since its users were none.
    """

    __slots__ = ("fd", "lock", "pins", "users", "written")

    def __init__(self) -> None:
        self.fd = -1
        self.lock = threading.Lock()
        self.pins = 0
        self.users = 0
        self.written = False


class PartFiles:
    """The files of one partial form, by their numbers in the manifest. Thread-safe until ``settle``."""

    def __init__(self, part: Path, manifest: Manifest) -> None:
        """``part`` is the partial form itself; nothing is opened yet."""
        self._part = part
        self._whole = manifest.kind == "file"
        self._paths = manifest.columns.paths
        self._sizes = manifest.columns.sizes
        self._modes = manifest.columns.modes
        self._root = -1
        self._lock = threading.Lock()
        self._files: OrderedDict[int, _File] = OrderedDict()
        count = len(self._paths)
        self._inodes = array("Q", bytes(8 * count))
        self._times = array("q", bytes(8 * count))
        self._full = bytearray(count)
        self._doubts: set[int] = set()
        self._faults: list[OSError] = []
        self._watch: ForeignWrites | None = None
        self._own: Counter[str] = Counter()
        self.unset_modes: list[int] = []
        """Files that ``in_doubt`` found to have another mode than they are to have."""

    def open_root(self) -> None:
        """Hold the directory in which the files are. Raises ``OSError``."""
        directory = self._part.parent if self._whole else self._part
        self._root = system.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def path(self, number: int) -> Path:
        """Where the file of that number is."""
        return Path(self._place(number))

    def _place(self, number: int) -> str:
        path = self._paths[number]
        return f"{self._part}/{path}" if path else str(self._part)

    def _name(self, number: int) -> str:
        """Its path from the directory that is held."""
        return self._paths[number] or self._part.name

    def make(self, number: int, *, fresh: bool) -> None:
        """Make a file at its full size; what is there already keeps its content, unless ``fresh``: then it is refused.

        A file that has other names, too, is made anew: what we write must not show under those. Raises ``OSError``.
        """
        descriptor = self._open(number, os.O_CREAT | (os.O_EXCL if fresh else 0))
        try:
            before = None if fresh else system.fstat(descriptor)
            linked = before is not None and before.st_nlink > 1
            if not linked:
                if (before.st_size if before is not None else 0) != self._sizes[number]:
                    self._resize(descriptor, number)
                self._note(number, descriptor)
        finally:
            system.close(descriptor)
        if linked:
            system.unlink(self._name(number), dir_fd=self._root)
            self.make(number, fresh=True)

    def _resize(self, descriptor: int, number: int) -> None:
        """Give an open file its size; one that only grows by being written gets it so. Raises ``OSError``."""
        try:
            system.ftruncate(descriptor, self._sizes[number])
        except OSError as error:
            if not refused("ftruncate", error, self.path(number)):
                raise

    def _open(self, number: int, flags: int = 0) -> int:
        name = self._name(number)
        flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            # The mode that it is to have: nobody else gets into the directory of the get, and of many files that are
            # made so none has to be changed. Our own permission to write is needed to go on from here.
            return system.open(name, flags, self._modes[number] | 0o600, dir_fd=self._root)
        except PermissionError:
            if not stat.S_ISREG(system.stat(name, dir_fd=self._root, follow_symlinks=False).st_mode):
                raise
            # A ``finish`` that failed at the very end had set the final one.
            system.chmod(name, 0o600, dir_fd=self._root)
            return system.open(name, flags, dir_fd=self._root)

    @staticmethod
    def _inode(status: os.stat_result) -> int:
        return status.st_ino & _WORD

    def _note(self, number: int, descriptor: int) -> None:
        """Remember how a file is that we have just written, or just made."""
        status = system.fstat(descriptor)
        self._inodes[number] = self._inode(status)
        self._times[number] = status.st_mtime_ns
        self._full[number] = status.st_size == self._sizes[number]

    def begin(self) -> None:
        """All files are made: watch who writes to them from now on."""
        if 0 < len(self._paths) <= MAX_WATCHED:
            root = self._part.parent if self._whole else self._part
            inside = sorted({path.rpartition("/")[0] for path in self._paths})
            self._watch = ForeignWrites(root, inside)

    def write_whole(self, number: int, data: memoryview) -> bool:
        """Write all of a small file; false where it is large, open or watched: then ``borrow`` it.

        Raises ``StorageError``.
        """
        if len(data) > SMALL_BYTES or self._watch is not None or number in self._files:
            return False
        try:
            descriptor = self._open(number)
            try:
                if self._full[number]:
                    self._compare(number, descriptor)
                write_at(descriptor, data, 0)
                self._note_or_doubt(number, descriptor)
            finally:
                system.close(descriptor)  # NFS and others say only now that there was no room
        except OSError as error:
            raise StorageError(path=self.path(number), detail=words(error)) from None
        return True

    def borrow(self, number: int) -> int:
        """A descriptor of that file, for reading and writing, until ``give_back``. Raises ``StorageError``."""
        with self._lock:
            file = self._files.get(number)
            if file is None:
                file = self._files[number] = _File()
            self._files.move_to_end(number)
            file.pins += 1
            unused = self._evicted()
        for other, old in unused:
            self._close(other, old)
        try:
            with file.lock:
                if file.fd < 0:
                    file.fd = self._open(number)
                if not file.users and self._full[number]:
                    self._compare(number, file.fd)
                file.users += 1
                return file.fd
        except OSError as error:
            with self._lock:
                file.pins -= 1
            raise StorageError(path=self.path(number), detail=words(error)) from None

    def give_back(self, number: int) -> None:
        """Let go of it. What was written to it through us is now as it should be; what was only read, as it was."""
        file = self._files[number]
        with file.lock:
            file.users -= 1
            if not file.users and file.written:
                file.written = False
                self._note_or_doubt(number, file.fd)
            elif not file.users and self._full[number]:
                self._compare(number, file.fd)
        with self._lock:
            file.pins -= 1

    def _evicted(self) -> list[tuple[int, _File]]:
        """Forget what has not been used for longest, where more is open than need be; the caller closes it."""
        found: list[tuple[int, _File]] = []
        if len(self._files) > MAX_OPEN:
            for number, file in list(self._files.items()):
                if not file.pins:
                    found.append((number, self._files.pop(number)))
                    if len(self._files) <= MAX_OPEN:
                        break
        return found

    def _close(self, number: int, file: _File) -> None:
        if file.fd < 0:
            return
        watch = self._watch
        if watch is not None:
            watch.hear()  # before and after: of two closings in a row that nobody heard of between, one is told
            with self._lock:
                self._own[self._name(number)] += 1
        try:
            system.close(file.fd)
        except OSError as error:  # NFS and others say only now that there was no room
            self._faults.append(error)
        if watch is not None:
            watch.hear()

    def _close_all(self) -> None:
        with self._lock:
            files, self._files = self._files, OrderedDict()
        for number, file in files.items():
            self._close(number, file)

    def _compare(self, number: int, descriptor: int) -> None:
        """Doubt a file that is not as we left it."""
        try:
            status = system.fstat(descriptor)
        except OSError:
            self._doubts.add(number)
            return
        if not self._as_left(number, status) or self._is_another(number, status):
            self._doubts.add(number)

    def _note_or_doubt(self, number: int, descriptor: int) -> None:
        full = self._full[number]
        try:
            self._note(number, descriptor)
        except OSError:
            self._doubts.add(number)
        if full and not self._full[number]:
            self._doubts.add(number)

    def before_write(self, number: int, descriptor: int) -> None:
        """To be called before each write to a borrowed file.

        One that was cut short is doubted: what is written next may make it as long as it was.
        """
        self._files[number].written = True
        if self._full[number] and os.lseek(descriptor, 0, os.SEEK_END) != self._sizes[number]:
            self._doubts.add(number)

    def settle(self) -> None:
        """Nobody writes any more: close all files, and find out who else wrote. Raises ``OSError``.

        From now on a file is what the path of the partial form leads to, whatever was opened before.
        """
        self._close_all()
        if self._faults:
            raise self._faults[0]
        root, self._root = self._root, -1
        system.close(root)
        self.open_root()
        if self._watch is None:
            return
        self._watch.hear()
        for number in range(len(self._paths)):
            name = self._name(number)
            if self._watch.lost or self._watch.closed[name] > self._own[name]:
                self._doubts.add(number)

    def in_doubt(self) -> list[int]:
        """Which files may not be what we wrote. Raises ``ForeignFile`` for what is no file at all, or ``OSError``."""
        few = len(self._paths) <= MAX_OPEN
        self.unset_modes = []
        for number in range(len(self._paths)):
            status = self._status(number)
            if stat.S_IMODE(status.st_mode) != self._modes[number]:
                self.unset_modes.append(number)
            if number not in self._doubts and not self._full[number]:
                size = self._sizes[number]
                raise StorageError(
                    path=self.path(number), detail=f"it has {status.st_size} bytes after {size} were written"
                )
            same = self._as_left(number, status) and not self._is_another(number, status)
            if not same or status.st_nlink > 1 or (few and self._is_open(number)):
                self._doubts.add(number)
        return sorted(self._doubts)

    def stamps(self) -> tuple[bytes, list[int]]:
        """All stamps, packed, and the files written to since they were last looked at. Raises as ``in_doubt``.

        Only times and sizes are compared: who exchanges a file and gives it the time of ours means to.
        """
        found, changed = bytearray(), []
        for number in range(len(self._paths)):
            status = self._status(number)
            found += pack_lasting(status, self._place(number))
            if not self._as_left(number, status):
                changed.append(number)
        return bytes(found), changed

    def _status(self, number: int) -> os.stat_result:
        status = system.lstat(self._place(number))
        if not stat.S_ISREG(status.st_mode):
            raise ForeignFile(path=self.path(number))
        return status

    def _as_left(self, number: int, status: os.stat_result) -> bool:
        left = self._times[number]
        if status.st_size != self._sizes[number]:
            return False
        return status.st_mtime_ns == left or FileStamp(0, 0, status.st_size, left).same_content(FileStamp.of(status))

    def _is_another(self, number: int, status: os.stat_result) -> bool:
        """Whether it is another file than was written, as far as numbers tell."""
        return self._inode(status) != self._inodes[number] and numbers_last(status, self._place(number))

    def _is_open(self, number: int) -> bool:
        """Whether somebody has it open to write it."""
        try:
            descriptor = self.open_to_read(number)
        except OSError:
            return False
        try:
            return being_written(descriptor)
        finally:
            system.close(descriptor)

    def open_to_read(self, number: int) -> int:
        """A descriptor of what stands under the file's name, to be closed by the caller. Raises ``OSError``."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        return system.open(self._name(number), flags, dir_fd=self._root)

    def before_clearing(self, number: int, descriptor: int) -> None:
        """The file is hashed again from now on: remember how it is. Raises ``OSError``."""
        self._note(number, descriptor)

    def cleared(self, number: int, descriptor: int) -> bool:
        """The file has been hashed and is right: whether it is as it was before that, and in doubt no more.

        Raises ``OSError``.
        """
        if not self._as_left(number, system.fstat(descriptor)):
            return False
        self._doubts.discard(number)
        return True

    def close(self) -> None:
        """Let go of all of it; nobody writes any more."""
        self._close_all()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        root, self._root = self._root, -1
        if root >= 0:
            system.close(root)
