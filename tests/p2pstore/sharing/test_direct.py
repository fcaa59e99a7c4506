"""What a process exports of its GPU's memory, and what another opens of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cuda import load
from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.fake_driver import FakeDriver
from engine.cuda.load import Cuda
from p2pstore.sharing.direct import Direct, Exports
from tests.engine.cuda.gpus import Tensor


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[tuple[FakeDriver, FakeDriver]]:
    """Two processes, as far as memory of GPUs goes."""
    one, other = (FakeDriver(2, shared=tmp_path) for _ in range(2))
    load.use(one)
    yield one, other
    load.forget()
    for driver in (one, other):
        driver.close()


def area(driver: FakeDriver, data: bytes) -> DeviceMemory:
    found = device_memory(Tensor(driver, data), "an area")
    assert isinstance(found, DeviceMemory)
    return found


def test_areas_are_found_where_they_lie(drivers: tuple[FakeDriver, FakeDriver]) -> None:
    one, other = drivers
    whole = area(one, b"0123456789")
    areas = [whole[2:6], memoryview(b""), whole[6:]]
    exports = Exports(load.cuda(), 0, areas)
    direct = Direct(Cuda(other), 1)
    assert direct.source(7, 0, 0) == 0
    assert direct.open(7, json.loads(json.dumps(exports.said)))
    assert other.open["opened"] == 1, "all of it at once"
    start = direct.source(7, 0, 0) - 2
    assert other.read(start) == b"0123456789"
    assert direct.source(7, 2, 3) == start + 9
    assert direct.source(7, 1, 0) == 0
    direct.forget(7)
    direct.forget(7)
    assert direct.source(7, 0, 0) == 0
    assert other.open["opened"] == other.open["memory"] == 0
    exports.close()
    assert one.open["memory"] == 0
    for each in (whole, areas[0], areas[2]):
        each.release()


def test_memory_that_is_not_exported_is_not_read(drivers: tuple[FakeDriver, FakeDriver]) -> None:
    one, other = drivers
    mine = area(one, b"0123")
    one.refuse("export", "CUDA_ERROR_INVALID_VALUE")
    exports = Exports(load.cuda(), 0, [mine])
    assert exports.said is None
    assert not Direct(Cuda(other), 0).open(1, exports.said)
    exports.close()
    mine.release()


def test_memory_that_cannot_be_opened_is_not_read(drivers: tuple[FakeDriver, FakeDriver]) -> None:
    one, other = drivers
    mine, second = area(one, b"0123"), area(one, b"4567")
    exports = Exports(load.cuda(), 0, [mine, second])
    direct = Direct(Cuda(other), 0)
    assert exports.said is not None
    said = {**exports.said, "areas": [exports.said["areas"][0], [b"0-none".ljust(64, b"\0").hex(), 0]]}
    assert not direct.open(3, said)
    assert other.open["opened"] == 0
    assert direct.open(3, exports.said)
    direct.close()
    assert other.open["opened"] == 0
    exports.close()
    mine.release()
    second.release()
