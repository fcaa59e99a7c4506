"""A file system in user space that passes everything through to a directory, but for what it is told to refuse or bend.

    python tests/fuse_passthrough.py DIRECTORY MOUNTPOINT MODE...

Modes: ``ino`` (inode numbers change at every look), ``nolock``, ``nosync`` (of directories), ``nochmod``, ``nosocket``,
``noroom`` (zeros for statvfs), ``noblocks``, ``seconds`` (times are cut), ``direct`` (no shared mappings).
"""

from __future__ import annotations

import errno
import itertools
import os
import sys

import mfusepy

KEYS = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")
ROOM = (
    "f_bavail",
    "f_bfree",
    "f_blocks",
    "f_bsize",
    "f_favail",
    "f_ffree",
    "f_files",
    "f_flag",
    "f_frsize",
    "f_namemax",
)


def refuse(number: int) -> int:
    raise mfusepy.FuseOSError(number)


class Passthrough(mfusepy.Operations):
    use_ns = True

    def __init__(self, root: str, modes: set[str]) -> None:
        self.root = root
        self.modes = modes
        self.numbers = itertools.count(1000)

    def _place(self, path: str) -> str:
        return self.root + path

    def __call__(self, op, path, *args):
        try:
            return super().__call__(op, path, *args)
        except mfusepy.FuseOSError:
            raise
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from None

    def getattr(self, path, fh=None):
        status = os.lstat(self._place(path))
        found = {key: getattr(status, key) for key in KEYS}
        for key in ("st_mtime", "st_ctime", "st_atime"):
            found[key] = getattr(status, f"{key}_ns")
        if "seconds" in self.modes:
            found["st_mtime"] -= found["st_mtime"] % 10**9
        if "ino" in self.modes:
            found["st_ino"] = next(self.numbers)
        if "noblocks" in self.modes:
            found["st_blocks"] = 0
        return found

    def readdir(self, path, fh):
        names = [".", "..", *os.listdir(self._place(path))]
        # An entry without a number is one that was deleted, to the C library.
        return [(name, {"st_ino": next(self.numbers), "st_mode": 0}, 0) for name in names]

    def open(self, path, flags):
        return os.open(self._place(path), flags & ~(os.O_NOFOLLOW | os.O_APPEND | os.O_NONBLOCK))

    def create(self, path, mode, fi=None):
        return os.open(self._place(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self._place(path), length)

    def chmod(self, path, mode):
        if "nochmod" in self.modes:
            refuse(errno.EOPNOTSUPP)
        os.chmod(self._place(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self._place(path), uid, gid)

    def mknod(self, path, mode, dev):
        if "nosocket" in self.modes:
            refuse(errno.EPERM)
        os.mknod(self._place(path), mode, dev)

    def lock(self, path, fh, cmd, lock):
        return refuse(errno.EOPNOTSUPP) if "nolock" in self.modes else refuse(errno.ENOSYS)

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def fsyncdir(self, path, datasync, fh):
        if "nosync" in self.modes:
            refuse(errno.EINVAL)

    def statfs(self, path):
        about = os.statvfs(self.root)
        found = {key: getattr(about, key) for key in ROOM}
        if "noroom" in self.modes:
            found.update(f_bavail=0, f_bfree=0, f_blocks=0)
        return found

    def unlink(self, path):
        os.unlink(self._place(path))

    def mkdir(self, path, mode):
        os.mkdir(self._place(path), mode)

    def rmdir(self, path):
        os.rmdir(self._place(path))

    def rename(self, old, new):
        os.rename(self._place(old), self._place(new))

    def utimens(self, path, times):
        os.utime(self._place(path), ns=times)

    def release(self, path, fh):
        os.close(fh)

    def flush(self, path, fh):
        return 0


def main() -> None:
    root, mountpoint, *modes = sys.argv[1:]
    options = {"foreground": True, "nothreads": False, "default_permissions": False}
    if "ino" in modes:
        options.update(use_ino=True, attr_timeout=0, entry_timeout=0)
    if "direct" in modes:
        options.update(direct_io=True)
    mfusepy.FUSE(Passthrough(root, set(modes)), mountpoint, **options)


if __name__ == "__main__":
    main()
