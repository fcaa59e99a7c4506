"""Memory between an engine's KV cache and the pool.

A transfer that nobody waits for any more must not touch the cache: its blocks are others' by then. So values come to
memory of this module first, and are copied from there once they are whole and right; and what is put is copied here
before it is sent.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Iterator, Sequence

from engine.memory.copying import address_of
from p2pstore.kv.client import device_memory

WINDOW_BYTES = 64 << 20
"""Of values that are moved together: while they are, they take this much memory."""

MAX_WINDOWS = 4
"""Windows that there are at once, those of late transfers among them."""


class Window:
    """A piece of memory, in use by one transfer at a time."""

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size)
        self.view = memoryview(self._memory)
        self.address = address_of(self.view)

    def take(self, at: int, pointers: Sequence[int], sizes: Sequence[int]) -> None:
        """Copy what lies at ``pointers`` to ``at`` of this memory, one behind the other.

        Memory of a GPU is copied by its driver. Raises ``UsageError`` where that fails.
        """
        to, gpu = self.address + at, device_memory.driver()
        for pointer, size in zip(pointers, sizes, strict=True):
            if gpu is not None and gpu.owns(pointer):
                gpu.to_host(to, pointer, size)
            else:
                ctypes.memmove(to, pointer, size)
            to += size

    def give(self, at: int, pointers: Sequence[int], sizes: Sequence[int]) -> None:
        """Copy what lies at ``at`` of this memory to ``pointers``. Raises as ``take``."""
        source, gpu = self.address + at, device_memory.driver()
        for pointer, size in zip(pointers, sizes, strict=True):
            if gpu is not None and gpu.owns(pointer):
                gpu.to_device(pointer, source, size)
            else:
                ctypes.memmove(pointer, source, size)
            source += size


class Windows:
    """The windows of one store. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Window] = []
        self._made = 0

    def get(self, size: int) -> Window | None:
        """One of at least ``size`` bytes; None where all are in use."""
        with self._lock:
            place = next((n for n, each in enumerate(self._free) if len(each.view) >= size), None)
            if place is not None:
                return self._free.pop(place)
            if self._made == MAX_WINDOWS:
                if not self._free:
                    return None
                self._free.pop()  # a smaller one, in whose place there will be a larger one
                self._made -= 1
            self._made += 1
        try:
            return Window(max(size, WINDOW_BYTES))
        except BaseException:
            with self._lock:
                self._made -= 1
            raise

    def put(self, window: Window) -> None:
        """Take one back."""
        with self._lock:
            self._free.append(window)


def runs(sizes: Sequence[int]) -> Iterator[range]:
    """Places of values that fit into a window together, in order; one that is larger is alone."""
    start = total = 0
    for place, size in enumerate(sizes):
        if place > start and total + size > WINDOW_BYTES:
            yield range(start, place)
            start, total = place, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))
