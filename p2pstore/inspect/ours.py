"""Our own records, ``mooncake/p2p/v1/...``, from key and value to fields; pure."""

from __future__ import annotations

from typing import Any

from p2pstore.cluster.records import PREFIX
from p2pstore.inspect.values import Malformed, count, parse_object, printable, scalars, text

FAMILIES = {"nodes": "node", "objects": "object", "versions": "version", "tags": "tag", "replicas": "replica"}

STATES = ("complete", "partial")
ROLES = ("gold", "replica")


def family_of(key: str) -> str:
    """``node``, ``object``, ``version``, ``tag`` or ``replica``; empty for every other key."""
    head, found, name = key.removeprefix(PREFIX).partition("/")
    return FAMILIES.get(head, "") if key.startswith(PREFIX) and found and name else ""


def identity(key: str) -> dict[str, Any]:
    """What the key alone says of its record; an object's name may hold slashes."""
    head, _, name = key.removeprefix(PREFIX).partition("/")
    if head == "nodes":
        return {"node": printable(name)}
    if head == "objects":
        return {"name": printable(name)}
    if head == "versions":
        name, _, manifest = name.partition("@")
        return {"name": printable(name), "manifest": printable(manifest)}
    if head == "tags":
        name, _, tag = name.partition(":")
        return {"name": printable(name), "tag": printable(tag)}
    manifest, _, node = name.partition("/")
    return {"manifest": printable(manifest), "node": printable(node)}


def decode(family: str, key: str, value: bytes) -> dict[str, Any]:
    """The fields of one of our records. Raises ``Malformed``."""
    data = parse_object(value)
    fields = scalars(data)
    if family == "node":
        text(data, "control")
    elif family in {"object", "version", "tag"}:
        text(data, "manifest")
        for name in ("size", "chunk_size"):
            count(data, name)
    else:
        _one_of(data, "state", STATES)
        _one_of(data, "role", ROLES)
    for name, expected in identity(key).items():
        if name in fields and fields[name] != expected:
            raise Malformed(f"{name!r} is {fields[name]!r}, and its key says {expected!r}")
        fields[name] = expected
    return fields


def _one_of(data: dict[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    if text(data, name) not in allowed:
        raise Malformed(f"{name!r} is none of {', '.join(allowed)}")
