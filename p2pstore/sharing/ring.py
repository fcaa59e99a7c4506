"""Buffers in memory that processes of a host share and each has pinned: a chunk lies in one until all have it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from engine.cuda.load import Cuda
from engine.cuda.pinned import PinnedBuffer
from engine.errors import GpuFailed, UsageError
from engine.memory.shared import Mapping, map_handed_over

RING_BYTES = 128 << 20
"""Of each process's part, where chunks are not so large that this would be too few."""

LEAST_BUFFERS = 4
MOST_BUFFERS = 64
"""In a part: what is said of each must fit into a socket's buffer."""

WAIT_SECONDS = 0.05
"""Between two looks whether the wait for a buffer is still wanted."""


def buffers_for(chunk_size: int) -> int:
    """How many buffers of a chunk's size a part has."""
    return max(LEAST_BUFFERS, min(MOST_BUFFERS, RING_BYTES // chunk_size))


class Ring:
    """All parts of the memory: this process fills the buffers of its own, and copies from all. Thread-safe."""

    def __init__(self, descriptor: int, me: int, chunk_size: int, cuda: Cuda, device: int) -> None:
        """Each buffer has ``chunk_size`` bytes. Raises ``GpuFailed``, ``UsageError`` and ``OSError``."""
        self.buffer_bytes = chunk_size
        self.count = buffers_for(chunk_size)
        self._cuda = cuda
        self._device = device
        self._first = me * self.count
        self._mapping: Mapping | None = map_handed_over(descriptor)
        self._address = self._mapping.address
        self._length = self._mapping.length
        if (self._first + self.count) * chunk_size > self._length:
            raise UsageError(detail="the memory that was handed over is too small")
        with cuda.driver.on(device):
            cuda.driver.register(self._address, self._length)
        whole = self._mapping.view()
        self._changed = threading.Condition()
        self._free = list(range(self.count))
        self._buffers: list[PinnedBuffer] = []
        for number in range(self.count):
            begin = (self._first + number) * chunk_size
            buffer = PinnedBuffer(self._address + begin, chunk_size, device)
            buffer.view = whole[begin : begin + chunk_size]  # who still writes to one keeps the memory mapped
            self._buffers.append(buffer)

    def take(self, check: Callable[[], None]) -> PinnedBuffer:
        """One of this process's; waits until there is one. ``check`` raises where the wait is not wanted."""
        while True:
            check()
            with self._changed:
                if self._free:
                    return self._buffers[self._free.pop()]
                self._changed.wait(WAIT_SECONDS)

    def give(self, buffer: PinnedBuffer) -> None:
        """Nothing reads or fills it any more."""
        with self._changed:
            self._free.append(self.number_of(buffer))
            self._changed.notify()

    def number_of(self, buffer: PinnedBuffer) -> int:
        """The number by which others are told of it."""
        return (buffer.address - self._address) // self.buffer_bytes - self._first

    def address(self, process: int, number: int) -> int:
        """Where a buffer of a process lies. Raises ``ValueError`` where there is none."""
        address = self._address + (process * self.count + number) * self.buffer_bytes
        if not 0 <= number < self.count or address + self.buffer_bytes > self._address + self._length:
            raise ValueError("there is no such buffer")
        return address

    def close(self) -> None:
        """Let go of the memory: nothing is copied from it any more. Twice is harmless."""
        mapping, self._mapping = self._mapping, None
        if mapping is None:
            return
        for buffer in self._buffers:
            buffer.view.release()
        with contextlib.suppress(GpuFailed), self._cuda.driver.on(self._device):  # a GPU that is lost has none pinned
            self._cuda.driver.unregister(self._address)
