"""What may be called what: object names, node names, and the paths inside an object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from p2pstore.errors import BadName

MAX_NAME_BYTES = 255
"""An object's or a node's name; it becomes part of an etcd key."""

MAX_PATH_BYTES = 4095
"""A path inside an object: Linux's PATH_MAX less the final NUL."""

MAX_PART_BYTES = 255
"""One part of such a path: NAME_MAX of every common file system."""

_OBJECT = re.compile(r"[A-Za-z0-9._/-]+")
_SUFFIX = re.compile(r"[0-9a-f]{4}")
_NODE = re.compile(r"[A-Za-z0-9._-]+")


def check_object_name(name: str) -> str:
    """Return ``name`` if an object may be called so, else raise ``BadName``."""
    if not isinstance(name, str):
        raise BadName(name=name, detail="it is not text")
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


def is_object_name(text: str) -> bool:
    """Whether an object may be called so."""
    try:
        check_object_name(text)
    except BadName:
        return False
    return True


def check_node_name(name: str) -> str:
    """Return ``name`` if a node may be called so, else raise ``BadName``."""
    if not isinstance(name, str):
        raise BadName(name=name, detail="it is not text")
    if not name or len(name) > MAX_NAME_BYTES or not _NODE.fullmatch(name) or name in {".", ".."}:
        raise BadName(name=name, detail="a node's name has no '/' and is one part of an object's name")
    return name


def nodes_meant(asked: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that somebody may mean who asks for ``asked``; one where it is plain.

    A node that was given no name has its host's, and four characters: so the host's name finds it, with its domain or
    without; and so does whatever names begin with, as long as one does.
    """
    known = sorted(names)
    short = asked.partition(".")[0]
    for wanted in (
        lambda name: name == asked,
        lambda name: _of_host(name, asked),
        lambda name: name.startswith(asked),
        lambda name: _of_host(name, short),
    ):
        found = [name for name in known if wanted(name)]
        if found:
            return found
    return []


def _of_host(name: str, host: str) -> bool:
    own, _, suffix = name.rpartition("-")
    return own == host and bool(_SUFFIX.fullmatch(suffix))


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
        fault = part_fault(part)
        if fault:
            return fault
    return ""


def part_fault(part: str) -> str:
    """As ``path_fault``, for one part of a path: what a directory may call its entries, but for NULs and slashes."""
    if not part:
        return "has an empty part"
    if part in {".", ".."}:
        return f"has the part {part!r}"
    if len(part) > MAX_PART_BYTES or (not part.isascii() and len(part.encode("utf-8")) > MAX_PART_BYTES):
        return f"has a part longer than {MAX_PART_BYTES} bytes"
    return ""


def sibling_fault(path: str, parent: str) -> str:
    """As ``path_fault``, for one of many below ``parent``, which is safe, and ends with a slash unless it is empty."""
    if path.isascii() and len(path) <= MAX_PATH_BYTES and "\0" not in path:
        return part_fault(path[len(parent) :])
    return path_fault(path)


def tree_fault(files: Sequence[str], directories: Sequence[str]) -> str:
    """Why these cannot be the files and empty directories of one object, in a few words; empty when they can.

    Every path is safe and comes once, both lists are sorted, and none is a file where another needs a directory.
    """
    known, empty = frozenset(files), frozenset(directories)
    if not known.isdisjoint(empty):
        return "a path is a file and a directory"
    return _paths_fault(files, known, empty) or _paths_fault(directories, known, empty)


def _paths_fault(paths: Iterable[str], files: frozenset[str], empty: frozenset[str]) -> str:
    before, above = "", None
    for path in paths:
        parent = path[: path.rfind("/") + 1]
        fault = sibling_fault(path, parent) if parent == above else path_fault(path)
        if fault:
            return f"the path {path!r} {fault}"
        if parent != above:  # else it was looked at with the sibling before
            fault = _parents_fault(path, files, empty)
            if fault:
                return fault
        if path <= before:
            return "its paths are not sorted, or one comes twice"
        before, above = path, parent
    return ""


def _parents_fault(path: str, files: frozenset[str], empty: frozenset[str]) -> str:
    end = path.find("/")
    while end >= 0:
        parent = path[:end]
        if parent in files:
            return f"{parent!r} is a file and a directory"
        if parent in empty:
            return f"{parent!r} is said to be empty and is not"
        end = path.find("/", end + 1)
    return ""
