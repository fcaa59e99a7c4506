"""A sink that is memory."""

from __future__ import annotations


class IntoMemory:
    """A sink that fills one piece of memory."""

    def __init__(self, view: memoryview) -> None:
        """``view`` is writable and as long as what will be received."""
        self._view = view.cast("B")
        self.done = 0

    def buffer(self, remaining: int) -> memoryview:
        """See ``Sink.buffer``."""
        return self._view[self.done : self.done + remaining]

    def filled(self, count: int) -> None:
        """See ``Sink.filled``."""
        self.done += count
