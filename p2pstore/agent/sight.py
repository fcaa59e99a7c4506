"""Whether a command and the agent that works for it see the same thing under one path.

They are two processes, and may have two views of the file system: the agent runs in a container, in a chroot, or in a
unit of systemd with a /tmp of its own. A command says what it sees at the paths that it names, and the agent refuses
the call where it sees something else, instead of publishing another file, or of writing where its user will not look.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.net.host_id import view_id
from p2pstore.errors import OtherView, UsageError

MAX_PLACES = 2048
"""Paths of one call that are compared."""

MAX_MOUNTS = 512
"""Mounts below a directory that are compared."""

_MOUNTS = Path("/proc/self/mountinfo")

_OF_EACH_PROCESS = ("/proc/self", "/proc/thread-self", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr")
"""Where every process finds something of its own."""

Seen = list[int]
"""Device, inode, size, and the times of change of content and of status, in nanoseconds."""


def look(path: str, *, follow: bool = True) -> Seen | None:
    """What is at ``path``; None where nothing is, or where this process may not look."""
    try:
        found = os.stat(path, follow_symlinks=follow)
    except (OSError, ValueError):
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def check_shared(path: str) -> None:
    """Raise ``UsageError`` for an absolute path that leads the agent to something of its own: a file it has open."""
    whole = "/" + path.lstrip("/")
    if any(whole == own or whole.startswith(own + "/") for own in _OF_EACH_PROCESS):
        raise UsageError(detail=f"{path} is another file in each process, and the agent is one; name the file itself")


def sight(*paths: str) -> dict[str, Any]:
    """What a call says of the paths that it names: as this process sees them. Raises as ``check_shared``."""
    for path in paths:
        check_shared(path)
    seen = {path: found for path in dict.fromkeys(paths) if (found := look(path)) is not None}
    return {"view": view_id(), "places": dict(list(seen.items())[:MAX_PLACES])}


def sight_of_source(path: str) -> dict[str, Any]:
    """``sight`` of what is to be registered: with what is mounted below it."""
    return {**sight(path), "mounts": {path: mounts_below(path)} if os.path.isdir(path) else {}}


def sight_of_destination(dest: str) -> dict[str, Any]:
    """``sight`` of where something is to be put: its directory, and itself where something is mounted on it."""
    check_shared(dest)
    parent = os.path.dirname(dest)
    return {**sight(parent, *_mounted(dest)), "dest": dest}


def check(call: object) -> None:
    """Raise ``OtherView`` where this process does not see what a call's ``sight`` says. Its form is not relied on."""
    said = call if isinstance(call, Mapping) else {}
    mine = view_id()
    if mine and said.get("view") == mine:
        return  # one mount namespace and one root: a path is a path
    same_kernel = _boot(said.get("view")) == _boot(mine)
    places = said.get("places")
    places = places if isinstance(places, Mapping) else {}
    for path, seen in list(places.items())[:MAX_PLACES]:
        if not same(seen, look(str(path)), same_kernel=same_kernel):
            raise OtherView(path=path)
    dest = said.get("dest")
    if isinstance(dest, str) and any(path not in places for path in _mounted(dest)):
        raise OtherView(path=dest)
    mounts = said.get("mounts")
    for path, below in mounts.items() if isinstance(mounts, Mapping) else ():
        if below != mounts_below(str(path)):
            raise OtherView(path=path)


def check_result(path: str, view: object, seen: object) -> None:
    """Raise ``OtherView`` where this process does not find at ``path`` what the agent says it has put there."""
    mine = view_id()
    if (mine and view == mine) or seen is None:
        return
    if not same(seen, look(path, follow=False), same_kernel=_boot(view) == _boot(mine)):
        raise OtherView(path=path)


def same(one: object, other: object, *, same_kernel: bool = True) -> bool:
    """Whether two looks were at one thing. Pure.

    By device and inode, or, since some file systems number anew at every look, by size and times of change.
    """
    if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
        return False
    return (same_kernel and one[:2] == other[:2]) or one[2:] == other[2:]


def mounts_below(path: str) -> list[str]:
    """What is mounted below a directory: each mount's place there, its device, and its root on that device."""
    top = os.path.realpath(path).rstrip("/") + "/"
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, device, root, place = line.split(" ", 5)[:5]
        if place.startswith(top):
            found.append(f"{place[len(top) :]} {device} {root}")
    return sorted(found)[:MAX_MOUNTS]


def _mounted(dest: str) -> Sequence[str]:
    """``dest``, where it is a directory on another device than the one that it is in."""
    try:
        here = os.stat(dest)
        if stat.S_ISDIR(here.st_mode) and here.st_dev != os.stat(os.path.dirname(dest)).st_dev:
            return (dest,)
    except OSError:
        pass
    return ()


def _boot(view: object) -> str:
    return view.partition("/")[0] if isinstance(view, str) else ""
