"""One setting, and how the texts of most are understood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config.layers import absolute

ENVIRONMENT_PREFIX = "MOONCAKE_"

OF_MASTER = "master_"
"""What the keys of a store's master begin with, and its options do not."""


@dataclass(frozen=True)
class Key:
    """One setting: how its text is understood, what it is for, and its default.

    ``parse`` gets the text (of a flag, the environment or a file) and the directory that relative paths start from; it
    raises ``ValueError`` with a sentence of its own. A file may say a fraction where ``decimal`` is set.
    """

    name: str
    parse: Callable[[str, Path], Any]
    help: str
    default: Any = None
    plain: bool = False
    """Whether TOML may give it as a number, or as true or false; else a file has forgotten the quotes of a text."""
    decimal: bool = False

    def read(self, value: object, base: Path) -> Any:
        """What a value of a file, a flag or a variable means. Raises ``ValueError``, whose words say what is wrong."""
        if isinstance(value, int) or (self.decimal and isinstance(value, float)):
            value = str(value).lower()  # of true and false as TOML has them
            if not self.plain and not self.decimal:
                raise ValueError(f"it is a text; write it in quotes, not as {value}")
        elif isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"a {type(value).__name__} cannot be {self.name}")  # noqa: TRY004 - as the parsers
        return self.parse(value, base)

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The command line option, where there is one."""
        return "--" + self.name.removeprefix(OF_MASTER).replace("_", "-")


def as_text(text: str, _base: Path) -> str:
    """A text that says something."""
    if not text.strip() or "\0" in text:
        raise ValueError("it is empty" if not text.strip() else "it has a NUL")
    return text


def as_path(text: str, base: Path) -> Path:
    """A path; a relative one starts from ``base``."""
    as_text(text, base)
    return absolute(text, base)


def as_boolean(text: str, _base: Path) -> bool:
    """True or false, as people write it."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def whole(low: int, high: int) -> Callable[[str, Path], int]:
    """A parser of whole numbers between two bounds."""

    def parse(text: str, _base: Path) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return value

    return parse


def as_share(text: str, _base: Path) -> float:
    """A share of something: above 0, up to 1."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ValueError(f"{text!r} is no share; write one above 0, up to 1, like 0.9")
    return share


def one_of(*allowed: str) -> Callable[[str, Path], str]:
    """A parser of a few words."""

    def parse(text: str, _base: Path) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return parse
