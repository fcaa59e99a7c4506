"""Memory of the fake GPUs as a framework, whose tensors are their bytes."""

from __future__ import annotations

from typing import Any

from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.fake_driver import FakeDriver
from p2pstore.tensors.frameworks import Framework
from p2pstore.tensors.plan import Place
from tests.engine.cuda.gpus import Tensor


class OnGpu(Framework):
    """Of one GPU. What was made keeps its memory."""

    name = "fake"
    on_gpu = True

    def __init__(self, driver: FakeDriver, device: int = 0) -> None:
        self.driver = driver
        self.device = device

    def check(self, tensors: Any) -> None:
        """Any type will do."""

    def area(self, length: int) -> Any:
        return Tensor(self.driver, b"\xff" * length, device=self.device)

    def view(self, area: Any) -> memoryview | DeviceMemory:
        return device_memory(area, "the memory", writable=True)

    def tensor(self, area: Any, place: Place) -> Any:
        if not place.length:
            return b""
        assert self.driver.device_of(area.address) == self.device
        return area.content[place.offset : place.offset + place.length]
