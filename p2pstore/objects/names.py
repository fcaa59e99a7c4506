"""What may be called what: object names, node names, and the paths inside an object."""

from __future__ import annotations

import re

from p2pstore.errors import BadName

MAX_NAME_BYTES = 255
"""An object's or a node's name; it becomes part of an etcd key."""

MAX_PATH_BYTES = 4095
"""A path inside an object: Linux's PATH_MAX less the final NUL."""

MAX_PART_BYTES = 255
"""One part of such a path: NAME_MAX of every common file system."""

_OBJECT = re.compile(r"[A-Za-z0-9._/-]+")
_NODE = re.compile(r"[A-Za-z0-9._-]+")


def check_object_name(name: str) -> str:
    """Return ``name`` if an object may be called so, else raise ``BadName``."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise BadName(name=name, detail="it is empty" if not name else f"it is longer than {MAX_NAME_BYTES} bytes")
    if not _OBJECT.fullmatch(name):
        raise BadName(name=name, detail="it has a character that is not allowed")
    parts = name.split("/")
    if "" in parts:
        raise BadName(name=name, detail="it has an empty part")
    if "." in parts or ".." in parts:
        raise BadName(name=name, detail="'.' and '..' are not allowed as parts")
    return name


def check_node_name(name: str) -> str:
    """Return ``name`` if a node may be called so, else raise ``BadName``."""
    if not name or len(name) > MAX_NAME_BYTES or not _NODE.fullmatch(name) or name in {".", ".."}:
        raise BadName(name=name, detail="a node's name has no '/' and is one part of an object's name")
    return name


def path_fault(path: str) -> str:
    """Why ``path`` may not name a file inside an object, in a few words; empty when it may.

    A path is relative, POSIX, UTF-8, without ``.``, ``..`` or empty parts: joined to any directory it stays inside.
    """
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not path:
        return "is empty"
    if "\0" in path:
        return "has a NUL"
    if len(encoded) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if path.startswith("/"):
        return "is absolute"
    for part in path.split("/"):
        if not part:
            return "has an empty part"
        if part in {".", ".."}:
            return f"has the part {part!r}"
        if len(part.encode("utf-8")) > MAX_PART_BYTES:
            return f"has a part longer than {MAX_PART_BYTES} bytes"
    return ""
