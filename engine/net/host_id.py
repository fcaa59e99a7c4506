"""Which host this is, as far as sharing files is concerned."""

from __future__ import annotations

import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_id() -> str:
    """An identity that two processes share when they run on one boot of one kernel with the same view of it.

    Boot id, mount namespace and network namespace: processes in different containers, or in the network namespaces
    that stand for hosts in tests, count as different hosts. Empty where /proc does not tell.
    """
    try:
        mount, network = (os.stat(f"/proc/self/ns/{name}") for name in ("mnt", "net"))
        return f"{boot_id()}/{mount.st_ino}/{network.st_ino}"
    except OSError:
        return ""


def view_id() -> str:
    """An identity that two processes share when a path means the same to both: one mount namespace, and one root.

    Empty where /proc does not tell.
    """
    try:
        mount, root = os.stat("/proc/self/ns/mnt"), os.stat("/")
        return f"{boot_id()}/{mount.st_ino}/{root.st_dev}/{root.st_ino}"
    except OSError:
        return ""


def boot_id() -> str:
    """The running boot of the kernel. Raises ``OSError`` where /proc does not tell."""
    return _BOOT_ID.read_text().strip()


def known_boot_id() -> str:
    """The same; empty where /proc does not tell."""
    try:
        return boot_id()
    except OSError:
        return ""
