"""A ring of pinned buffers: taken, filled, copied from or to by a GPU, and taken again once an event says so.

The ring grows as it is used, up to its limit. A good part is pinned freely: who waits for a buffer asks for events in
vain meanwhile, with the interpreter's lock that others want. To pin 16 MiB takes some milliseconds, a copy of as much a
third of one: so beyond that, a buffer that is about to come back is waited for first. And pinned memory stays, until
``trim``.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from engine.cuda.driver import OUT_OF_MEMORY, Driver, recorded
from engine.errors import GpuFailed

LEAST_BYTES = 1 << 20
"""Buffers are powers of two, and none is smaller."""

FREELY_BYTES = 256 << 20
"""Up to so much nothing is waited for: a get has up to some twenty chunks under way."""

SHORTLY_SECONDS = 0.002
"""Beyond, so long a copy that is under way is waited for before more memory is pinned."""

FIRST_PAUSE_SECONDS = 0.00005
LAST_PAUSE_SECONDS = 0.001
"""Between two looks at an event: short at first, since most copies take less than a millisecond."""

WAIT_SECONDS = 0.05
"""Between two looks whether the wait for a buffer is still wanted."""


class PinnedBuffer:
    """Pinned memory at ``address``, and a ``view`` of its bytes."""

    __slots__ = ("address", "device", "flights", "view")

    def __init__(self, address: int, length: int, device: int) -> None:
        """``device`` is the GPU that was in use when it was pinned; all can copy from and to it."""
        self.address = address
        self.device = device
        self.flights = 0
        """Copies from it that are under way, each in another stream; the ring's own."""
        self.view = memoryview((ctypes.c_ubyte * length).from_address(address)).cast("B")


class PinnedPool:
    """The ring. Thread-safe; nobody waits for the driver while holding its lock."""

    def __init__(self, driver: Driver, limit: int) -> None:
        """``limit`` in bytes is never exceeded."""
        self.most_pinned_bytes = 0
        self.pinned_bytes = 0
        self._driver = driver
        self._limit = limit
        self._changed = threading.Condition()
        self._free: list[PinnedBuffer] = []
        self._flying: dict[tuple[int, int], deque[tuple[int, PinnedBuffer]]] = {}

    def take(self, length: int, device: int, check: Callable[[], None]) -> PinnedBuffer:
        """A buffer of at least ``length`` bytes; waits until there is one.

        ``check`` is called meanwhile, and raises where the wait is not wanted any more. Raises ``GpuFailed``, and
        ``ValueError`` for more than the limit.
        """
        size = _size(length)
        if size > self._limit:
            raise ValueError(f"a buffer of {length} bytes is more than may be pinned")
        shortly = time.monotonic() + SHORTLY_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while True:
            check()
            found = self._found(length)
            if found is None:
                self._land()
                found = self._found(length)
            if found is not None:
                return found
            flying = bool(self._flying)
            freely = self.pinned_bytes + size <= FREELY_BYTES
            if (not flying or freely or time.monotonic() >= shortly) and self._reserved(size):
                made = self._pinned(size, device)
                if made is not None:
                    return made
            with self._changed:
                self._changed.wait(pause if flying else WAIT_SECONDS)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    def take_at_once(self, length: int, device: int) -> PinnedBuffer | None:
        """As ``take``; None where that takes a wait for others. Raises ``GpuFailed``."""
        self._land()
        found = self._found(length)
        if found is None and self._reserved(size := _size(length)):
            found = self._pinned(size, device)
        return found

    def give(self, buffer: PinnedBuffer) -> None:
        """Nothing uses it any more."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def give_after(self, buffer: PinnedBuffer, device: int, stream: int, event: int) -> None:
        """Nothing uses it any more once ``event`` is done, of a stream of ``device``; the event is the ring's now."""
        self.give_after_all(buffer, [(device, stream, event)])

    def give_after_all(self, buffer: PinnedBuffer, ends: Sequence[tuple[int, int, int]]) -> None:
        """As ``give_after``, where several streams copy from it: devices, streams and events, at least one."""
        with self._changed:
            buffer.flights = len(ends)
            for device, stream, event in ends:
                self._flying.setdefault((device, stream), deque()).append((event, buffer))

    def trim(self) -> None:
        """Give back what nothing uses."""
        self._land()
        with self._changed:
            free, self._free = self._free, []
        self._unpin(free)

    def _found(self, length: int) -> PinnedBuffer | None:
        """The smallest free buffer that will do."""
        with self._changed:
            fitting = [buffer for buffer in self._free if len(buffer.view) >= length]
            if not fitting:
                return None
            found = min(fitting, key=lambda buffer: len(buffer.view))
            self._free.remove(found)
            return found

    def _reserved(self, size: int) -> bool:
        """Whether so much more may be pinned now; free buffers, which were too small, make room for it."""
        while True:
            with self._changed:
                if self.pinned_bytes + size <= self._limit:
                    self.pinned_bytes += size
                    return True
                if self.pinned_bytes - sum(len(buffer.view) for buffer in self._free) + size > self._limit:
                    return False
                gone = self._free.pop()
            self._unpin([gone])

    def _pinned(self, size: int, device: int) -> PinnedBuffer | None:
        """A new buffer, whose room is reserved; None where the system has no more to give, and others come back."""
        try:
            with self._driver.on(device):
                address = self._driver.pin(size)
        except BaseException as error:
            with self._changed:
                self.pinned_bytes -= size
                others = self.pinned_bytes
            self.trim()
            if isinstance(error, GpuFailed) and error.fields["code"] == OUT_OF_MEMORY and others:
                return None
            raise
        with self._changed:
            self.most_pinned_bytes = max(self.most_pinned_bytes, self.pinned_bytes)
        return PinnedBuffer(address, size, device)

    def _unpin(self, buffers: list[PinnedBuffer]) -> None:
        for buffer in buffers:
            length = len(buffer.view)
            buffer.view.release()
            with contextlib.suppress(GpuFailed), self._driver.on(buffer.device):  # a GPU that is lost has none left
                self._driver.unpin(buffer.address)
            with self._changed:
                self.pinned_bytes -= length
                self._changed.notify()

    def _land(self) -> None:
        """Take back what is free by now: of each stream the oldest come first."""
        for key in list(self._flying):
            self._land_of(key)

    def _land_of(self, key: tuple[int, int]) -> None:
        while True:
            with self._changed:
                flying = self._flying.get(key)
                if flying is None:
                    return
                event, buffer = flying.popleft()
                if not flying:
                    del self._flying[key]
            if not over(self._driver, key[0], event):
                with self._changed:
                    self._flying.setdefault(key, deque()).appendleft((event, buffer))
                return
            with self._changed:
                buffer.flights -= 1
                if not buffer.flights:
                    self.give(buffer)


def _size(length: int) -> int:
    """Of the buffer for so many bytes."""
    return max(LEAST_BYTES, 1 << (length - 1).bit_length())


def over(driver: Driver, device: int, event: int) -> bool:
    """Whether an event is done; then it is ended. What failed is over, too: whoever copies hears of it elsewhere."""
    with contextlib.suppress(GpuFailed), driver.on(device):
        with contextlib.suppress(GpuFailed):
            if not driver.done(event):
                return False
        driver.end_event(event)
    return True


def stream_done(driver: Driver, device: int, stream: int, until: float) -> bool:
    """Wait for what is in a stream by now; false where ``until``, of ``time.monotonic``, came first.

    Raises ``GpuFailed``.
    """
    with driver.on(device):
        event = recorded(driver, stream)
    if until_done(driver, device, event, until, lambda: None):
        return True
    with driver.on(device):
        driver.end_event(event)
    return False


def until_done(driver: Driver, device: int, event: int, until: float, check: Callable[[], None]) -> bool:
    """Wait for an event, and end it; False where ``until``, of ``time.monotonic``, came first, and it goes on.

    ``check`` is called meanwhile, and may raise. Raises ``GpuFailed`` where the copies behind it failed.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        with driver.on(device):
            try:
                done = driver.done(event)
            except GpuFailed:
                with contextlib.suppress(GpuFailed):
                    driver.end_event(event)
                raise
            if done:
                driver.end_event(event)
                return True
        if time.monotonic() >= until:
            return False
        check()
        time.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
