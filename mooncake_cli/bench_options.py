"""What ``bench transfer`` and ``bench store`` are told alike: sizes, threads, rounds, and whose engine is measured."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, TypeVar

import typer

from p2pstore.errors import UsageError
from p2pstore.objects.units import parse_size

MAX_BUFFER = 1 << 40
"""Bytes of a target's memory, and the largest number of anything here."""

Kind = TypeVar("Kind", bound=Enum)


class Driven(str, Enum):
    """Whose engine is measured."""

    OURS = "ours"
    MOONCAKE = "mooncake"
    BOTH = "both"


Threads = Annotated[str, typer.Option("--threads", metavar="NUMBERS", help="Threads: a list, or FIRST:LAST doubling.")]
Duration = Annotated[float, typer.Option("--duration", metavar="SECONDS", help="Time to measure each case and engine.")]
Rounds = Annotated[int, typer.Option("--rounds", metavar="NUMBER", help="Rounds into which the duration is split.")]
Whose = Annotated[Driven, typer.Option("--engine", metavar="WHOSE", help="ours, mooncake (upstream's wheel) or both.")]


def numbers(option: str, text: str) -> list[int]:
    """Numbers or sizes from ``1,4`` or ``4KiB:64MiB``, which doubles. Raises ``UsageError``."""
    from engine.bench.cases import doubling  # noqa: PLC0415 - --help must not wait for it

    found: list[int] = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        found += doubling(size_of(option, first), size_of(option, last)) if colon else [size_of(option, part)]
    return found


def chosen(option: str, text: str, kinds: type[Kind]) -> list[Kind]:
    """What words separated by commas mean. Raises ``UsageError``."""
    found: list[Kind] = []
    for word in text.split(","):
        try:
            found.append(kinds(word.strip()))
        except ValueError:
            names = ", ".join(str(each.value) for each in kinds)
            raise UsageError(detail=f"{option} {word.strip()!r} is none of {names}") from None
    return found


def block(size: int) -> str:
    """A block size with a binary unit where it is a whole number of that: ``64 KiB``, ``1000``."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << power and not size % (1 << power):
            return f"{size >> power} {unit}"
    return str(size)


def size_of(option: str, text: str) -> int:
    """A number or size. Raises ``UsageError``."""
    try:
        found = parse_size(text)
    except ValueError as error:
        raise UsageError(detail=f"{option}: {error}") from None
    if not 0 < found <= MAX_BUFFER:
        raise UsageError(detail=f"{option}: {text.strip()!r} is not between 1 and {MAX_BUFFER}")
    return found
