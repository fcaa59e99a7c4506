"""Whose files are obeyed: ours and root's, where nobody else can write them. The kernel's words about them, judged."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

ROOT = 0


class NotObeyed(Exception):
    """A file is not read; the text says why, in a few words."""


def open_obeyed(file: Path, *, named: bool) -> BinaryIO:
    """Open a configuration file that is ours or root's, and that nobody else can write.

    One that was not ``named``, but found, must be a file, too: a pipe would hold us up. Raises ``NotObeyed`` and
    ``OSError``.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | (0 if named else os.O_NONBLOCK))
    try:
        _check(file, os.fstat(descriptor), named=named)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def why_not_obeyed(found: os.stat_result) -> str:
    """Why a configuration file is not obeyed, in a few words; empty where it is."""
    if found.st_uid not in {ROOT, os.geteuid()}:
        return f"it belongs to {user_name(found.st_uid)}"
    if others_can_write(found):
        return "others can write it"
    return ""


def _check(file: Path, found: os.stat_result, *, named: bool) -> None:
    if stat.S_ISREG(found.st_mode):
        why = why_not_obeyed(found) or why_no_link(file)
    else:
        why = "" if named or stat.S_ISDIR(found.st_mode) else "it is no regular file"
    if why:
        raise NotObeyed(why)


def why_no_link(file: Path) -> str:
    """The same of the link that leads to it, if it is one: whoever made that chose the file."""
    found = os.lstat(file)
    if not stat.S_ISLNK(found.st_mode) or found.st_uid in {ROOT, os.geteuid()}:
        return ""
    return f"the link to it belongs to {user_name(found.st_uid)}"


def others_can_write(found: os.stat_result) -> bool:
    """Whether anybody but the owner can; a group that is the owner's own, with nobody else in it, is no other."""
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_private(found.st_gid, found.st_uid)


def user_name(uid: int) -> str:
    """The user as people know it."""
    import pwd  # noqa: PLC0415 - seldom asked for

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _is_private(gid: int, uid: int) -> bool:
    """Whether a group is of the kind that each user has one of: of the user's name, with nobody else in it."""
    import grp  # noqa: PLC0415 - seldom asked for
    import pwd  # noqa: PLC0415 - as above

    if gid == ROOT and uid == ROOT:
        return True
    try:
        group, owner = grp.getgrgid(gid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    return group.gr_name == owner and set(group.gr_mem) <= {owner}
