"""Buffers in memory that processes of a host share and each has pinned: a chunk lies in one until all have it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from engine.cuda.load import Cuda
from engine.cuda.pinned import PinnedBuffer
from engine.errors import GpuFailed, UsageError
from engine.memory.shared import Mapping, map_handed_over

PART_BYTES = 256 << 20
"""Of each process's part, where chunks are not so large that this would be too few buffers."""

ALL_BYTES = 1 << 30
"""Of all parts together, likewise."""

LEAST_BUFFERS = 4
MOST_BUFFERS = 64
"""In a part: what is said of each must fit into a socket's buffer."""

WAIT_SECONDS = 0.05
"""Between two looks whether the wait for a buffer is still wanted."""

log = logging.getLogger(__name__)


class Unreadable(Exception):
    """A buffer of another process's cannot be pinned here."""


def buffers_for(chunk_size: int, processes: int) -> int:
    """How many buffers of a chunk's size each of so many parts has."""
    return max(LEAST_BUFFERS, min(MOST_BUFFERS, min(PART_BYTES, ALL_BYTES // processes) // chunk_size))


class Ring:
    """All parts of the memory: this process fills the buffers of its own, and copies from all. Thread-safe.

    A few buffers are pinned when it is made, and each of the others when it is used first: to pin all of them takes
    longer than the first chunks take to come.
    """

    def __init__(self, descriptor: int, me: int, processes: int, chunk_size: int, cuda: Cuda, device: int) -> None:
        """``processes`` is how many there may be; each buffer has ``chunk_size`` bytes.

        Raises ``GpuFailed``, ``UsageError`` and ``OSError``.
        """
        self.buffer_bytes = chunk_size
        self.count = buffers_for(chunk_size, processes)
        self._cuda = cuda
        self.device = device
        self._first = me * self.count
        self._mapping: Mapping | None = map_handed_over(descriptor)
        self._address = self._mapping.address
        self._length = self._mapping.length
        if (self._first + self.count) * chunk_size > self._length:
            raise UsageError(detail="the memory that was handed over is too small")
        whole = self._mapping.view()
        self._changed = threading.Condition()
        self._buffers: list[PinnedBuffer] = []
        for number in range(self.count):
            begin = (self._first + number) * chunk_size
            buffer = PinnedBuffer(self._address + begin, chunk_size, device)
            buffer.view = whole[begin : begin + chunk_size]  # who still writes to one keeps the memory mapped
            self._buffers.append(buffer)
        self._pinned: set[int] = set()  # addresses of buffers, of all processes
        self._fresh = self._buffers[::-1]  # that were never used
        self._free: list[PinnedBuffer] = []
        try:
            for _ in range(LEAST_BUFFERS):
                self._free.append(self._fresh.pop())
                self._pin(self._free[-1].address)
        except BaseException:
            self.close()
            raise

    def take(self, check: Callable[[], None]) -> PinnedBuffer:
        """One of this process's; waits until there is one. ``check`` raises where the wait is not wanted."""
        while True:
            check()
            with self._changed:
                if not self._free and not self._fresh:
                    self._changed.wait(WAIT_SECONDS)
                if self._free:
                    return self._free.pop()
                fresh = self._fresh.pop() if self._fresh else None
            if fresh is not None and self._could_pin(fresh):
                return fresh

    def give(self, buffer: PinnedBuffer) -> None:
        """Nothing reads or fills it any more."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def has(self, buffer: PinnedBuffer) -> bool:
        """Whether it is one of these."""
        return 0 <= self.number_of(buffer) < self.count

    def number_of(self, buffer: PinnedBuffer) -> int:
        """The number by which others are told of it."""
        return (buffer.address - self._address) // self.buffer_bytes - self._first

    def address(self, process: int, number: int) -> int:
        """Where a buffer of a process lies, to be copied from. Used by one thread for each process.

        Raises ``ValueError`` where there is none, and ``Unreadable``.
        """
        address = self._address + (process * self.count + number) * self.buffer_bytes
        if not 0 <= number < self.count or address + self.buffer_bytes > self._address + self._length:
            raise ValueError("there is no such buffer")
        if address not in self._pinned:
            try:
                self._pin(address)
            except GpuFailed as error:
                raise Unreadable(str(error)) from None
        return address

    def close(self) -> None:
        """Let go of the memory: nothing is copied from it any more. Twice is harmless."""
        mapping, self._mapping = self._mapping, None
        if mapping is None:
            return
        for buffer in self._buffers:
            buffer.view.release()
        for address in self._pinned:
            with contextlib.suppress(GpuFailed), self._cuda.driver.on(self.device):  # one that is lost has none pinned
                self._cuda.driver.unregister(address)

    def _pin(self, address: int) -> None:
        with self._cuda.driver.on(self.device):
            self._cuda.driver.register(address, self.buffer_bytes)
        self._pinned.add(address)

    def _could_pin(self, fresh: PinnedBuffer) -> bool:
        """Pin one more. Where no more can be, those that are come back."""
        try:
            self._pin(fresh.address)
        except GpuFailed as error:
            log.info("no more than %d buffers are shared with other processes: %s", len(self._pinned), error)
            with self._changed:
                self._fresh.clear()
            return False
        return True
