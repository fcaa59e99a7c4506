"""Memory of other processes' GPUs that this one's reads by itself: what they export, and what was opened of it.

All that was allocated together is opened, and where in it an area begins is told. Only one way of copying is used:
the reader reads. Nobody writes to memory of a process that may end.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from engine.cuda.device_memory import DeviceMemory
from engine.cuda.exported import Sample, reads_right
from engine.cuda.load import Cuda
from engine.errors import GpuFailed
from p2pstore.objects.memory_objects import Lent

log = logging.getLogger(__name__)


class Exports:
    """What this process lets others read, for as long as they share."""

    def __init__(self, cuda: Cuda, device: int, areas: Sequence[Lent]) -> None:
        """Nothing where CUDA does not export it: memory that a library has mapped itself, say."""
        self.said: dict[str, Any] | None = None
        """For the others, in JSON's types."""
        self._sample: Sample | None = None
        try:
            with cuda.driver.on(device):
                exported = [cuda.driver.export(a.address) if isinstance(a, DeviceMemory) else None for a in areas]
            self._sample = sample = Sample(cuda, device)
        except GpuFailed as error:
            log.info("this process's memory of GPU %d is not read by others: %s", device, error)
            return
        self.said = {
            "areas": [[each.handle.hex(), each.offset] if each is not None else None for each in exported],
            "sample": [sample.exported.handle.hex(), sample.exported.offset, sample.digest],
        }

    def close(self) -> None:
        """Free what was made; twice is harmless."""
        if self._sample is not None:
            self._sample.close()


class Direct:
    """What was opened, by process. Thread-safe."""

    def __init__(self, cuda: Cuda, device: int) -> None:
        self._cuda = cuda
        self._device = device
        self._lock = threading.Lock()
        self._opened: dict[int, dict[bytes, int]] = {}  # addresses by handle
        self._areas: dict[int, list[int]] = {}

    def open(self, process: int, said: Mapping[str, Any] | None) -> bool:
        """Open what another process exports; whether its memory is read from now on, since a try was right."""
        if said is None:
            return False
        try:
            handle, offset, digest = said["sample"]
            if not reads_right(self._cuda, self._device, bytes.fromhex(handle), int(offset), digest):
                log.warning(
                    "GPU %d reads other bytes of another process's than it has: it gets them from the host",
                    self._device,
                )
                return False
            areas = [self._address(process, *each) if each is not None else 0 for each in said["areas"]]
        except GpuFailed as error:
            log.info("another process's memory is not read by GPU %d: %s", self._device, error)
            self.forget(process)
            return False
        with self._lock:
            self._areas[process] = areas
        return True

    def _address(self, process: int, handle: str, offset: int) -> int:
        key = bytes.fromhex(handle)
        opened = self._opened.setdefault(process, {})
        if key not in opened:
            with self._cuda.driver.on(self._device):
                opened[key] = self._cuda.driver.open_exported(key)
        return opened[key] + int(offset)

    def source(self, process: int, area: int, offset: int) -> int:
        """Where a byte of another's areas lies here; 0 where its memory is not read."""
        with self._lock:
            areas = self._areas.get(process)
            return areas[area] + offset if areas is not None and areas[area] else 0

    def forget(self, process: int) -> None:
        """Nothing of it is read any more; twice is harmless."""
        with self._lock:
            self._areas.pop(process, None)
            opened = self._opened.pop(process, {})
        for address in opened.values():
            with contextlib.suppress(GpuFailed), self._cuda.driver.on(self._device):
                self._cuda.driver.close_exported(address)

    def close(self) -> None:
        """Nothing of anybody is read any more."""
        for process in list(self._opened):
            self.forget(process)
