"""Sinks for tests of channels."""

from __future__ import annotations

from typing import NoReturn


class Pieces:
    """A sink with a small buffer that it uses again and again, as the store's is; ``got`` is all that came."""

    def __init__(self, size: int = 1000) -> None:
        self.room = bytearray(size)
        self.got = bytearray()

    def buffer(self, remaining: int) -> memoryview:
        return memoryview(self.room)[: min(remaining, len(self.room))]

    def filled(self, count: int) -> None:
        self.got += self.room[:count]


class Unwilling(Pieces):
    """A sink that raises an ``OSError`` in one of its methods, which ``at`` names."""

    def __init__(self, at: str) -> None:
        super().__init__(10)
        setattr(self, at, self._refuse)

    def _refuse(self, _: int) -> NoReturn:
        raise BlockingIOError(28, "no space")
