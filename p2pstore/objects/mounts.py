"""What is mounted where, as this process sees it: from /proc/self/mountinfo, see proc(5).

``os.path.ismount`` compares devices, and so misses what is mounted from the same file system (a bind mount, which is
what a container's volume often is). The kernel's own list misses nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

LOCAL = frozenset(
    {"bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "ntfs", "ntfs3"}
    | {"overlay", "ramfs", "reiserfs", "tmpfs", "vfat", "xfs", "zfs"}
)
"""Types of file systems that one machine at a time uses: what holds a lock there is a process of this machine."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One mounted file system, and where; ``kind`` is its type, such as ``ext4``."""

    point: str
    kind: str


class Mounts:
    """The mounts at one moment. Without /proc there are none, and ``os.path.ismount`` has to do."""

    def __init__(self, text: bytes | None = None) -> None:
        """``text`` is what mountinfo says, by default now."""
        if text is None:
            try:
                text = MOUNTINFO.read_bytes()
            except OSError:
                text = b""
        self._mounts = [mount for mount in map(_parsed, text.splitlines()) if mount is not None]

    def at(self, path: Path) -> bool:
        """Whether ``path``, which is absolute and has no links in it, is a mount point."""
        if not self._mounts:
            return os.path.ismount(path)
        return any(mount.point == str(path) for mount in self._mounts)

    def below(self, path: Path) -> str:
        """A mount point somewhere below ``path``; empty where there is none."""
        top = str(path).rstrip("/") + "/"
        return next((mount.point for mount in self._mounts if mount.point.startswith(top)), "")

    def kind(self, path: Path) -> str:
        """The type of the file system on which ``path`` lies; empty where it is not known."""
        best = Mount("", "")
        for mount in self._mounts:  # of two at one place the later hides the earlier
            inside = str(path) == mount.point or str(path).startswith(mount.point.rstrip("/") + "/")
            if inside and len(mount.point) >= len(best.point):
                best = mount
        return best.kind


def _parsed(line: bytes) -> Mount | None:
    """One line: its fifth field is the mount point, and the first after a lone hyphen the type."""
    fields = line.split()
    try:
        point, kind = fields[4], fields[fields.index(b"-", 6) + 1]
    except (IndexError, ValueError):
        return None
    unescaped = _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), point)
    return Mount(os.fsdecode(unescaped), kind.decode(errors="replace"))
