"""Where a get is to bring things: what DEST means for one object, and for several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from p2pstore.errors import MooncakeError, ObjectNotFound, UsageError
from p2pstore.objects.reference import is_reference, parse_reference

STANDARD_OUTPUT = "-"
"""DEST for a pipe: what comes is written there in order."""

Tags = Callable[[str], object]
"""Asks the agent for the tags of an object; raises ``ObjectNotFound``."""


def destination(name: str, dest: str) -> str:
    """The absolute path that DEST means: inside it, under the last part of ``name``, if it ends in "/" or is ".".

    Raises ``UsageError`` for an empty one.
    """
    if not dest:
        raise UsageError(detail="DEST is empty; '.' is the current directory")
    if _is_directory(dest):
        dest = os.path.join(dest, name.rpartition("/")[2])
    return os.path.abspath(dest)


def _is_directory(dest: str) -> bool:
    """Whether what is got is to lie inside."""
    return os.path.basename(dest) in {"", ".", ".."}


def _last_part(tags: Tags, name: str, dest: str) -> str:
    """What a name ends with, where that matters: a tag and a digest are no part of it.

    In ``NAME/a:b`` the agent knows whether ``b`` is a tag of the object ``NAME/a``, or ``a:b`` is a file in ``NAME``.
    """
    if not _is_directory(dest) or not is_reference(name) or parse_reference(name).plain:
        return name
    meant = parse_reference(name).name
    parts = name.split("/")
    shorter = ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
    for each in [name, *filter(is_reference, shorter)]:
        try:
            tags(each)
        except ObjectNotFound:
            continue
        except MooncakeError:  # nobody can say so now
            return meant
        return meant if each == name else name
    return meant


def places_of(tags: Tags, names: Sequence[str], dest: str) -> dict[str, str]:
    """The names by the paths where they are to be. Raises ``UsageError`` where two would be at one."""
    places: dict[str, str] = {}
    for name in names:
        place = place_of(tags, name, dest)
        if place in places:
            if os.path.basename(dest) not in {"", ".", ".."}:
                raise UsageError(detail=f"several objects cannot all be {dest}; '{dest}/' puts each inside")
            raise UsageError(detail=f"{places[place]} and {name} would both be {place}")
        places[place] = name
    return places


def place_of(tags: Tags, name: str, dest: str) -> str:
    """The path of one object, as ``destination`` has it; a tag and a digest are no part of its name."""
    return destination(_last_part(tags, name.rstrip("/"), dest), dest)
