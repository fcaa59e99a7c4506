"""Keep the garbage collector from holding up the agent: what it has looked at for too long it need not look at again.

A manifest of 200,000 files is some hundred thousand objects, none of which refers back to another. The collector looks
through all of them whenever it collects its oldest generation, which takes a third of a second, in which nothing else
runs. They are freed by their reference counts all the same. So after a collection that took long, what it left is
frozen (``gc.freeze``): it is looked at no more. Only cycles that exist by then and become garbage later are never
freed, and those are few: a collection has just found that they are in use.

This is for a process of our own. A program that holds a ``P2PStore`` decides itself about its collector.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

LONG_SECONDS = 0.02
"""A collection that took so long is not repeated over the same objects."""


class Freezer:
    """Freezes what long collections leave. ``start`` and ``stop`` bound the time in which it does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, freeze: Callable[[], None] = gc.freeze) -> None:
        self._clock = clock
        self._freeze = freeze
        self._began = 0.0
        self.frozen = 0

    def start(self) -> None:
        """From now on, watch every collection."""
        gc.callbacks.append(self.watch)

    def stop(self) -> None:
        """Watch no more. Twice is harmless."""
        if self.watch in gc.callbacks:
            gc.callbacks.remove(self.watch)

    def watch(self, phase: str, _: Mapping[str, Any]) -> None:
        """What the collector calls at the beginning and the end of each collection."""
        if phase == "start":
            self._began = self._clock()
        elif self._clock() - self._began > LONG_SECONDS:
            self._freeze()
            self.frozen += 1
