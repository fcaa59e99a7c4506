"""Which file it was and when it was last written: what tells that a file is another one, or was changed.

File systems tell more than they keep. Inode numbers of FUSE, SMB and FAT last as long as the kernel remembers a file;
times are cut to what is stored (100 ns, 1 s, 2 s) when a file is looked at anew. Neither means that anybody wrote.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from engine.files.system import system

FORGETFUL = frozenset(
    {
        0x65735546,  # FUSE: sshfs, mergerfs, rclone, object stores
        0xFF534D42,  # SMB1
        0xFE534D42,  # SMB2 and SMB3
        0x517B,  # the old smbfs
        0x4D44,  # FAT
        0x2011BAB0,  # exFAT
        0x01021997,  # 9p
        0x786F4256,  # folders of VirtualBox
        0xBACBACBC,  # folders of VMware
    }
)
"""File systems, by ``f_type`` of statfs(2), whose inode numbers may be others tomorrow, or at the next call."""

TIME_UNITS_NS = (100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""What file systems cut times to: SMB and NTFS, several databases of metadata, exFAT, ext3 and NFSv2, FAT."""

REMEMBERED_SECONDS = 1.0
"""How long is believed what was found out of a device: the number of one that is unmounted soon stands for another."""

MAX_REMEMBERED = 1000

NO_NUMBER = 0
"""Stands for the device and the inode where the numbers do not last."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file's identity and its last write; ``dev`` and ``inode`` are ``NO_NUMBER`` where numbers do not last.

    ``ctime_ns`` is when anything of it changed, 0 where nobody knows. A mode, an owner or a link changes it, too, so
    it makes no other file: it says that the content should be looked at.
    """

    dev: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = field(default=0, compare=False)

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """The stamp of what a stat found, as it is told."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def unnumbered(self) -> FileStamp:
        """The same of a file whose numbers are not to be relied on."""
        return replace(self, dev=NO_NUMBER, inode=NO_NUMBER, ctime_ns=0)

    def packed(self) -> bytes:
        """In ``STAMP_BYTES``."""
        return _STAMP.pack(self.dev, self.inode, self.size, self.mtime_ns, self.ctime_ns)

    @classmethod
    def unpack(cls, data: bytes) -> FileStamp:
        """The inverse of ``packed``."""
        return cls(*_STAMP.unpack(data))

    @staticmethod
    def unpack_all(data: bytes) -> Iterator[Sequence[int]]:
        """The numbers of many, packed one after the other."""
        return _STAMP.iter_unpack(data)

    def fits(self, now: FileStamp) -> bool:
        """Whether ``now`` is a stamp of the same file, unchanged."""
        return self == now or (self._same_numbers(now) and self.same_content(now))

    def same_content(self, now: FileStamp) -> bool:
        """Whether size and time are those of a file that nobody wrote to, whatever its numbers."""
        return self.size == now.size and _same_time(self.mtime_ns, now.mtime_ns)

    def renumbered(self, now: FileStamp) -> bool:
        """Whether the numbers alone differ: it is another file, or the file system's numbers do not last."""
        return not self._same_numbers(now) and self.same_content(now)

    def touched(self, now: FileStamp) -> bool:
        """Whether something of the file changed that a write, too, changes, though size and times may be put back."""
        return bool(self.ctime_ns and now.ctime_ns) and not _same_time(self.ctime_ns, now.ctime_ns)

    def _same_numbers(self, now: FileStamp) -> bool:
        if NO_NUMBER in {self.inode, now.inode}:
            return True
        return (self.dev, self.inode) == (now.dev, now.inode)


_STAMP = struct.Struct("=QQQqq")

STAMP_BYTES = _STAMP.size
"""Of many files, stamps are kept and compared in so many bytes each."""


def pack_stamp(status: os.stat_result) -> bytes:
    """As ``FileStamp.of``, then ``packed``, in a third of the time."""
    return _STAMP.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def pack_lasting(status: os.stat_result, path: str) -> bytes:
    """The stamp by which the file at ``path`` is known later on, ``packed``."""
    return pack_stamp(status) if numbers_last(status, path) else FileStamp.of(status).unnumbered().packed()


def numbers_last(status: os.stat_result, path: str) -> bool:
    """Whether the inode numbers of the file system at ``path``, of which ``status`` was found, can be relied on."""
    now = time.monotonic()
    known = _remembered.get(status.st_dev)
    if known is not None and now - known[0] < REMEMBERED_SECONDS:
        return known[1]
    last = _look(status, path)
    with _lock:
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[status.st_dev] = now, last
    return last


def _look(status: os.stat_result, path: str) -> bool:
    if not status.st_ino:
        return False
    try:
        if system.type_of(path) in FORGETFUL:
            return False
    except OSError:
        pass  # it tells nothing of itself: then only what can be seen
    try:
        again = system.stat(path)
    except OSError:
        return True
    return (again.st_dev, again.st_ino) == (status.st_dev, status.st_ino)


def _same_time(before: int, now: int) -> bool:
    """Whether two times in nanoseconds are one, the later look perhaps at what was stored of it."""
    return before == now or any(before - before % unit == now for unit in TIME_UNITS_NS)


_remembered: dict[int, tuple[float, bool]] = {}
_lock = threading.Lock()
