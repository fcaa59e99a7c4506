"""A clock for tests, which stands until it is told to go on."""

from __future__ import annotations


class Clock:
    """Tells ``now``, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
