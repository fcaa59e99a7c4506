"""Configuration in layers: values by name, each with the words for where it came from. What is taken later wins.

The engine's settings and the store's differ in their tables of names and in their sources, and share this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import BadConfig

DEFAULT_ORIGIN = "default"
"""Where a value came from that nobody gave."""

SECRET_SHOWN = "set, not shown"  # noqa: S105 - what stands in a secret's place
"""What a secret is shown as."""


class Layers:
    """The values so far, and their origins."""

    def __init__(self, defaults: Mapping[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = dict(defaults or {})
        self.origins: dict[str, str] = dict.fromkeys(self.values, DEFAULT_ORIGIN)

    def take(self, name: str, origin: str, read: Callable[[], Any]) -> None:
        """Take ``read()`` for ``name``. Raises ``BadConfig`` with the words of its ``ValueError``."""
        self.put(name, origin, understood(read, origin))

    def put(self, name: str, origin: str, value: Any) -> None:
        """Take a value that has been understood already."""
        self.values[name], self.origins[name] = value, origin


def understood(read: Callable[[], Any], origin: str) -> Any:
    """What ``read()`` gives. Raises ``BadConfig``, which names the origin, with the words of its ``ValueError``."""
    try:
        return read()
    except ValueError as error:
        raise BadConfig(origin=origin, detail=str(error)) from None


def of_variable(variable: str) -> str:
    """The origin of what an environment variable says."""
    return f"environment {variable}"


def current_directory() -> Path:
    """Where we are; the root where that directory was removed, which holds no file of ours."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def absolute(text: str | Path, base: Path) -> Path:
    """A path that somebody wrote, ``~`` included; a relative one starts from ``base``.

    Raises ``ValueError`` for the ``~`` of nobody, which would name a directory called "~".
    """
    expanded = os.path.expanduser(text)
    if str(expanded).startswith("~"):
        raise ValueError(f"{str(text)!r} is nobody's home directory (HOME is not set, or there is no such user)")
    return Path(os.path.normpath(base / expanded))


def shown(value: Any, *, secret: bool = False) -> str | int | float | bool | None:
    """A value as people and JSON see it; of a secret it is only said that it is set."""
    if value is None:
        return None
    if secret:
        return SECRET_SHOWN
    found: str | int | float | bool = str(value) if isinstance(value, Path) else value
    return found
