"""What callers of the Python interfaces pass: looked at where it comes in, so that a slip is told as one.

Type checkers tell most of these before. Who has none gets a sentence, not an AttributeError from deep inside.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Iterable
from typing import Any, TypeVar

from engine.errors import UsageError

T = TypeVar("T")

SHOWN = 60
"""Characters of a wrong value that an error shows."""


def refuse(value: object, what: str, wanted: str) -> UsageError:
    """The error for a value that is none of what is ``wanted``."""
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return UsageError(detail=f"{what} must be {wanted}, and is {shown}")


def text(value: object, what: str) -> str:
    """Text that can be written and sent. Raises ``UsageError``."""
    if not isinstance(value, str):
        raise refuse(value, what, "text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse(value, what, "text without lone surrogates") from None
    if "\0" in value:
        raise refuse(value, what, "text without NUL")
    return value


def all_text(**values: object) -> None:
    """Each argument, by its name, is text. Raises ``UsageError``."""
    for name, value in values.items():
        text(value, name)


def texts(value: object, what: str) -> tuple[str, ...]:
    """Several texts; one alone is a slip, of which each letter would count. Raises ``UsageError``."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise refuse(value, what, "a list of texts")
    return tuple(text(each, f"each of {what}") for each in value)


def whole(value: Any, what: str, lowest: int = 0) -> int:
    """A whole number, of any type that is one. Raises ``UsageError``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise refuse(value, what, "a whole number") from None
    if number < lowest:
        raise refuse(value, what, f"at least {lowest}")
    return number


def seconds(value: Any, what: str) -> float:
    """Seconds to wait, bounded by what the system can wait. Raises ``UsageError``."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__") or math.isnan(value):
        raise refuse(value, what, "a number of seconds")
    return min(max(0.0, float(value)), threading.TIMEOUT_MAX)


def path(value: Any, what: str) -> str:
    """A path as text; not an empty one, which would stand for the current directory. Raises ``UsageError``."""
    try:
        found = os.fsdecode(value)
        whole_path = b"\0" not in os.fsencode(found)
    except (TypeError, UnicodeEncodeError):
        whole_path = False
    if not whole_path:
        raise refuse(value, what, "a path")
    if not found:
        raise UsageError(detail=f"{what}: the path is empty; '.' is the current directory")
    return found


def instance(value: object, kind: type[T], what: str) -> T:
    """Something of one class. Raises ``UsageError``."""
    if not isinstance(value, kind):
        raise refuse(value, what, f"a {kind.__name__}")
    return value
