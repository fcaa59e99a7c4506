"""What is found about a key, the pool or its clients, and the words that all sentences about them share. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

MAX_SHOWN = 5
"""Names that a sentence lists."""

_Name = TypeVar("_Name", str, int)


class Finding(NamedTuple):
    """One answer: a word for the cause, what is so, and what to do about it; ``good`` where nothing is wrong."""

    cause: str
    text: str
    advice: str = ""
    good: bool = False


def counted(number: int, what: str) -> str:
    """So many of something."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def most(counts: Iterable[tuple[_Name, int]]) -> list[tuple[_Name, int]]:
    """Those that were counted most often."""
    return sorted(counts, key=lambda each: -each[1])[:MAX_SHOWN]


def listed(names: Iterable[str]) -> str:
    """Names for a sentence, the first of many."""
    shown = list(names)
    more = f" and {len(shown) - MAX_SHOWN} more" if len(shown) > MAX_SHOWN else ""
    return ", ".join(shown[:MAX_SHOWN]) + more
