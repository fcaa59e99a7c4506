"""Values that somebody else wrote: parsed without trust, shown without harm; pure."""

from __future__ import annotations

import json
import math
from typing import Any

PREVIEW = 64
"""Bytes of an unknown value that are shown."""

MAX_TEXT = 1024
"""Characters of a text from a value that are shown."""


class Malformed(Exception):
    """A value that is not what its key promises; the text says why. Never leaves this package."""


def printable(text: str) -> str:
    """The text with everything that could move a terminal's cursor, or that is no text, written as an escape."""
    shown = "".join(c if c.isprintable() else _escape(c) for c in text[:MAX_TEXT])
    return shown if len(text) <= MAX_TEXT else shown + "..."


def _escape(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        # A byte that was no UTF-8, as ``surrogateescape`` keeps it.
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def preview(value: bytes) -> str:
    """The first bytes, escaped."""
    shown = "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in value[:PREVIEW])
    return shown if len(value) <= PREVIEW else shown + "..."


def parse_object(value: bytes) -> dict[str, Any]:
    """The JSON object that a value holds. Raises ``Malformed``."""
    try:
        data = json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {printable(str(error))}") from error
    if not isinstance(data, dict):
        raise Malformed(f"a JSON {type(data).__name__}, no object")
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def text(data: dict[str, Any], name: str, default: str | None = None) -> str:
    """A text field. Raises ``Malformed`` where it is missing (and has no default) or no text."""
    value = data.get(name, default)
    if not isinstance(value, str):
        raise Malformed(f"{name!r} is missing" if name not in data else f"{name!r} is no text")
    return printable(value)


def count(data: dict[str, Any], name: str, default: int | None = None) -> int:
    """A whole number, not negative. Raises ``Malformed`` where it is missing (and has no default) or none."""
    value = data.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Malformed(f"{name!r} is missing" if name not in data else f"{name!r} is no whole number")
    return value


def items(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of JSON objects; empty where it is missing or null. Raises ``Malformed``."""
    value = data.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Malformed(f"{name!r} is no list of objects")
    return value


def scalars(data: dict[str, Any]) -> dict[str, Any]:
    """The fields that are text, numbers, booleans or null."""
    return {
        printable(name): printable(value) if isinstance(value, str) else value
        for name, value in data.items()
        if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    }
