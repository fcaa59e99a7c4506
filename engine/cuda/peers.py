"""Which GPUs copy to one another by themselves: what CUDA says of two, and what came of a try.

CUDA says yes on machines whose PCI bridges then carry other bytes, or none: NVIDIA's "CUDA C++ Programming Guide" warns
of an IOMMU on bare-metal Linux, and NCCL's of ACS. Nothing is hashed on a GPU, so each two are tried once.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections.abc import Iterable

from engine.cuda.driver import Driver, lasting
from engine.cuda.pinned import stream_done
from engine.errors import GpuFailed

TRIED_BYTES = 256 * 1024
"""Sent from GPU to GPU, of this process or of two, to see whether they arrive."""

TRY_SECONDS = 10.0
"""For that to come over; it takes less than a millisecond."""

log = logging.getLogger(__name__)


class Peers:
    """What is known of each two GPUs, found out when it is first asked for. Thread-safe."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int], bool] = {}

    def reach(self, device: int, other: int) -> bool:
        """Whether copies go from one to the other by themselves, and arrive. Raises ``GpuFailed`` for a lost GPU."""
        if device == other:
            return True
        with self._lock:
            found = self._known.get((device, other))
            if found is None:
                found = self._known[device, other] = self._found(device, other)
            return found

    def groups(self, devices: Iterable[int]) -> list[tuple[int, ...]]:
        """GPUs, each once, in groups of which each two reach each other, both ways. Raises as ``reach``."""
        groups: list[list[int]] = []
        for device in dict.fromkeys(devices):
            for group in groups:
                if all(self.reach(device, each) and self.reach(each, device) for each in group):
                    group.append(device)
                    break
            else:
                groups.append([device])
        return [tuple(group) for group in groups]

    def _found(self, device: int, other: int) -> bool:
        driver = self._driver
        try:
            if not driver.reaches(device, other):
                return False
            for one, two in ((device, other), (other, device)):
                with driver.on(one):
                    driver.open_peer(two)
            right = self._tried(device, other)
        except GpuFailed as error:
            if lasting(error):
                raise
            log.warning("GPU %d is not asked to copy to GPU %d: %s", device, other, error)
            return False
        if not right:
            log.warning(
                "GPU %d says that it can copy to GPU %d, and what it sent did not arrive: "
                "copies between them go by way of the host; see whether an IOMMU or ACS is on for their PCI bridges",
                device,
                other,
            )
        return right

    def _tried(self, device: int, other: int) -> bool:
        """Whether bytes that one GPU sends to another arrive as they were. Raises ``GpuFailed``."""
        driver, sent = self._driver, os.urandom(TRIED_BYTES)
        with contextlib.ExitStack() as made:

            def on(place: int, what: int, end: str) -> int:
                def give_back() -> None:
                    with contextlib.suppress(GpuFailed), driver.on(place):
                        getattr(driver, end)(what)

                made.callback(give_back)
                return what

            with driver.on(device):
                pinned = on(device, driver.pin(2 * TRIED_BYTES), "unpin")
                source = on(device, driver.memory(TRIED_BYTES), "end_memory")
                stream = on(device, driver.stream(), "end_stream")
            with driver.on(other):
                target = on(other, driver.memory(TRIED_BYTES), "end_memory")
                back = on(other, driver.stream(), "end_stream")
            ctypes.memmove(pinned, sent, TRIED_BYTES)
            with driver.on(device):
                driver.to_device(source, pinned, TRIED_BYTES, stream)
            try:
                with driver.on(device):
                    driver.to_peer(target, source, TRIED_BYTES, stream, other)
                came = self._see_done(device, stream)
                if came:
                    with driver.on(other):
                        driver.to_host(pinned + TRIED_BYTES, target, TRIED_BYTES, back)
                    came = self._see_done(other, back)
            except BaseException:
                made.pop_all()  # a copy may be under way, and what it uses is left alone
                raise
            if not came:
                made.pop_all()
                return False
            return ctypes.string_at(pinned + TRIED_BYTES, TRIED_BYTES) == sent

    def _see_done(self, device: int, stream: int) -> bool:
        return stream_done(self._driver, device, stream, time.monotonic() + TRY_SECONDS)
