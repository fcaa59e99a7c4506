"""Directories that are their user's alone, or a group's to pass through: what an agent guards itself by."""

from __future__ import annotations

import grp
import logging
import os
import stat
from pathlib import Path

from engine.config.trust import ROOT, others_can_write, user_name
from engine.files.abilities import abilities_of
from engine.files.refusals import cannot
from engine.files.system import system
from p2pstore.errors import BadConfig, HomeOfAnother, HomeUnusable

OWN = 0o700
"""A directory of the user's alone: the permission of the socket's directory is what authenticates a client."""

PASSABLE = 0o710
"""One that a group may pass through, to what lies there under a name that it knows."""

_OTHERS = 0o077

log = logging.getLogger(__name__)


def make_root(directory: Path) -> None:
    """Make the directory of a home, or see that the one which is there is ours. Raises ``HomeUnusable``."""
    found = _made(directory)
    if found.st_uid != ROOT and not _is_ours(directory, found.st_uid):
        raise HomeOfAnother(path=directory, user=user_name(found.st_uid))
    link = directory.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in {os.geteuid(), ROOT}:
        raise HomeOfAnother(path=f"the link {directory}", user=user_name(link.st_uid))
    if others_can_write(found) and not found.st_mode & stat.S_ISVTX:
        log.warning("others can write to %s, and put something else in place of what lies there", directory)


def make_own(directory: Path) -> None:
    """Make a directory for our user alone; one that is there must be ours, and is closed to others.

    Raises ``HomeUnusable``.
    """
    found = _made(directory)
    for uid in (found.st_uid, directory.lstat().st_uid):  # of the directory, and of a link that leads to it
        if not _is_ours(directory, uid):
            raise HomeOfAnother(path=directory, user=user_name(uid))
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        try:
            system.chmod(directory, OWN)
        except OSError as error:
            if not cannot("chmod", error):
                raise HomeUnusable(path=directory, detail=error.strerror or error) from error
            log.warning("%s is open to others, and cannot be closed: %s", directory, error.strerror)


def owner_above(path: Path) -> tuple[Path, str] | None:
    """What of a path, or above it, can be looked at first, and whose it is; None where it is ours."""
    for each in (path, *path.parents):
        try:
            owner = each.stat().st_uid
        except OSError:
            continue
        return None if owner == os.geteuid() else (each, user_name(owner))
    return None


def group_id(name: str) -> int:
    """The number of a group. Raises ``BadConfig`` where there is none of that name, and for an agent of root's."""
    if os.geteuid() == ROOT:
        detail = "an agent of root's would read and write for its members whatever root can; run it as another user"
        raise BadConfig(origin=f"group {name}", detail=detail)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadConfig(origin=f"group {name}", detail="there is no group of this name") from None


def let_pass(directory: Path, gid: int) -> None:
    """Let a group through. Raises ``HomeUnusable``."""
    _give(directory, gid, PASSABLE)


def let_connect(socket: Path, gid: int) -> None:
    """Let a group connect to a socket. Raises ``HomeUnusable``."""
    _give(socket, gid, 0o660)


def _made(directory: Path) -> os.stat_result:
    try:
        directory.mkdir(mode=OWN, parents=True, exist_ok=True)
        return system.stat(directory)
    except OSError as error:
        raise HomeUnusable(path=error.filename or directory, detail=error.strerror or error) from error


def _is_ours(directory: Path, uid: int) -> bool:
    """Whether a directory of that user is ours: some file systems call whatever we make another's."""
    try:
        return uid == os.geteuid() or abilities_of(directory).mapped_owner
    except OSError:  # we can make nothing there
        return False


def _give(path: Path, gid: int, mode: int) -> None:
    try:
        os.chown(path, -1, gid)
        path.chmod(mode)
    except OSError as error:
        detail = f"it cannot be opened to group {gid}: {error.strerror}"
        raise HomeUnusable(path=path, detail=detail) from error
