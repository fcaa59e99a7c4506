"""Whether an agent can keep what it writes: its home can be written, and has room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engine.files.room import free_bytes
from p2pstore.agent.home import Home
from p2pstore.agent.private import owner_above
from p2pstore.errors import HomeUnusable
from p2pstore.objects.units import format_size
from p2pstore.peers.checks import Check, failed, ok, warning

HOME = "agent's home"
"""What is looked at, as the checks name it."""

ANOTHER = " another with --home DIR or MOONCAKE_HOME"

ETCD_BYTES = 128 << 20
"""Room that an etcd of one's own takes: its log alone is laid out in pieces of 64 MB, two at a time."""
LITTLE_BYTES = 16 << 20
"""Room below which what an agent remembers may not be written: its catalog, its log, its journals."""


def check_home(home: Home, *, etcd: bool, writes: bool) -> Iterator[Check]:
    """The home's directory, or that in which it would be made.

    ``etcd``: whether the agent keeps an etcd there. ``writes``: whether this process may say what can be written there;
    another user's agent does as that user.
    """
    place = _nearest(home.root)
    if not os.path.isdir(place):  # it tells of what may not be looked at, too
        yield _unusable(f"{place} is no directory", "name")
        return
    if writes and not os.access(place, os.W_OK | os.X_OK):
        owner = owner_above(Path(place))
        if owner is not None:
            yield _unusable(f"{place} belongs to {owner[1]}, and cannot be written to", "name")
            return
        yield _unusable(f"{place} cannot be written to", "mend that, or name")
        return
    try:
        free = free_bytes(place)
    except OSError as error:
        yield _unusable(f"{place}: {error.strerror or error}", "mend that, or name")
        return
    if free is None:
        return
    found = f"{home.root}, {format_size(free)} free"
    advice = "free space there, or name"
    if free < LITTLE_BYTES:
        yield _unusable(found, advice)
    elif etcd and free < ETCD_BYTES:
        yield warning(HOME, f"{found}: too little for an etcd of its own", advice + ANOTHER)
    else:
        yield ok(HOME, found)


def _unusable(detail: str, advice: str) -> Check:
    return failed(HOME, detail, advice + ANOTHER, HomeUnusable.exit_code)


def _nearest(path: Path) -> Path:
    """The path, or what there is of it."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path
