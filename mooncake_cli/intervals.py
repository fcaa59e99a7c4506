"""What commands have in common that show something again and again: how often, how many times, and how they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

Interval = Annotated[
    float, typer.Option("--interval", metavar="SECONDS", min=0.1, max=3600, help="Time between two looks.")
]
Count = Annotated[int | None, typer.Option("--count", metavar="COUNT", min=1, help="End after so many.")]


def ticks(interval: float, count: int | None, wait: Callable[[float], bool]) -> Iterator[int]:
    """Numbers from 0 on, each after an interval, ``count`` of them or for ever.

    ``wait`` sleeps for so many seconds, and says whether to go on.
    """
    number = 0
    while (count is None or number < count) and wait(interval):
        yield number
        number += 1


def sleep(seconds: float) -> bool:
    """Wait, and go on."""
    time.sleep(seconds)
    return True
