"""Whose files are obeyed: ours and root's, where nobody else can write them. The kernel's words about them, judged."""

from __future__ import annotations

import os
import stat

ROOT = 0


def why_not_obeyed(found: os.stat_result) -> str:
    """Why a configuration file is not obeyed, in a few words; empty where it is."""
    if found.st_uid not in {ROOT, os.geteuid()}:
        return f"it belongs to {user_name(found.st_uid)}"
    if others_can_write(found):
        return "others can write it"
    return ""


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
