"""Memory of this process's GPU that others may open, and theirs: tried before it is relied upon, as peers are.

Whoever opens memory only reads it. What it reads of an owner that has ended meanwhile is not to be believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable

from engine.cuda.driver import failed, lasting
from engine.cuda.load import Cuda
from engine.cuda.peers import TRIED_BYTES, TRY_SECONDS
from engine.cuda.pinned import stream_done
from engine.errors import GpuFailed

TIMEOUT = "CUDA_ERROR_LAUNCH_TIMEOUT"
"""What is said of a copy that does not end."""


class _Stuck(Exception):
    """A copy does not end: what it uses is left alone."""


class Sample:
    """Random bytes on a GPU, by which others find out whether they read its memory."""

    def __init__(self, cuda: Cuda, device: int) -> None:
        """Raises ``GpuFailed``, where memory cannot be exported, too."""
        self._cuda = cuda
        self._device = device
        data = os.urandom(TRIED_BYTES)
        self.digest = hashlib.sha256(data).hexdigest()
        driver = cuda.driver
        with driver.on(device):
            self._address = address = driver.memory(TRIED_BYTES)
        try:
            with driver.on(device):
                self.exported = driver.export(address)
            _by_pinned(cuda, device, data, lambda at, stream: driver.to_device(address, at, TRIED_BYTES, stream))
        except _Stuck:
            raise failed("cuMemcpyHtoDAsync", device, TIMEOUT) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free it; twice is harmless."""
        address, self._address = self._address, 0
        if address:
            with contextlib.suppress(GpuFailed), self._cuda.driver.on(self._device):
                self._cuda.driver.end_memory(address)


def reads_right(cuda: Cuda, device: int, handle: bytes, offset: int, digest: str) -> bool:
    """Whether a GPU reads another process's ``Sample`` as it is. Raises ``GpuFailed``."""
    driver = cuda.driver
    with driver.on(device):
        opened = driver.open_exported(handle)
    room = 0

    def read(pinned: int, stream: int) -> None:
        driver.to_peer(room, opened + offset, TRIED_BYTES, stream, device)
        driver.to_host(pinned, room, TRIED_BYTES, stream)

    try:
        with driver.on(device):
            room = driver.memory(TRIED_BYTES)
        return hashlib.sha256(_by_pinned(cuda, device, bytes(TRIED_BYTES), read)).hexdigest() == digest
    except _Stuck:
        opened = room = 0
        return False
    finally:
        if room:
            with contextlib.suppress(GpuFailed), driver.on(device):
                driver.end_memory(room)
        if opened:
            with contextlib.suppress(GpuFailed), driver.on(device):
                driver.close_exported(opened)


def _by_pinned(cuda: Cuda, device: int, data: bytes, work: Callable[[int, int], None]) -> bytes:
    """Do ``work`` in a stream, with pinned memory that has ``data``; what that has then. Raises ``GpuFailed``."""
    driver, fault = cuda.driver, None
    with driver.on(device):
        stream = driver.stream()
    try:
        buffer = cuda.arriving.take(TRIED_BYTES, device, lambda: None)
        buffer.view[:TRIED_BYTES] = data
        try:
            with driver.on(device):
                work(buffer.address, stream)
        except GpuFailed as error:
            fault = error
        try:
            ended = stream_done(driver, device, stream, time.monotonic() + TRY_SECONDS)
        except GpuFailed as error:
            fault = fault or error
            # copies of a GPU that is lost have ended
            ended = lasting(error) or stream_done(driver, device, stream, time.monotonic() + TRY_SECONDS)
        if not ended:
            raise _Stuck
        found = bytes(buffer.view[:TRIED_BYTES])
        cuda.arriving.give(buffer)
        if fault is not None:
            raise fault
        return found
    finally:
        with contextlib.suppress(GpuFailed), driver.on(device):
            driver.end_stream(stream)
