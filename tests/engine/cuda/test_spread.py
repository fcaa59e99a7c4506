"""Copies to several GPUs: to one of those that reach one another from the host, and to the others from there."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cuda import load
from engine.cuda.copies import wanted
from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.fake_driver import FakeDriver
from engine.cuda.spread import Part, SpreadCopies
from engine.errors import GpuFailed
from tests.engine.cuda.gpus import WAIT, Array, fake, nothing_left
from tests.p2pstore.samples import content

LENGTH = 5000


def lent(source: Any) -> DeviceMemory:
    found = device_memory(source, "it", writable=True)
    assert isinstance(found, DeviceMemory)
    return found


class Rooms:
    """Memory on some GPUs, and the copies to it."""

    def __init__(self, driver: FakeDriver, devices: list[int]) -> None:
        self.driver = driver
        self.arrays = [Array(driver, bytes(LENGTH), device=device) for device in devices]
        self.memories = [lent(array) for array in self.arrays]
        self.copies = SpreadCopies(load.cuda(), devices)
        driver.to_devices = driver.to_peers = 0  # of the tries

    def spread(self, data: bytes, parts: list[Part], turn: int = 0) -> None:
        buffer = self.copies.take(len(data), 0, wanted)
        buffer.view[: len(data)] = data
        self.copies.spread(buffer, parts, turn)

    def all(self, start: int = 0, length: int = LENGTH, at: int = 0) -> Part:
        return Part(start, length, [(memory, at) for memory in self.memories])

    @property
    def contents(self) -> list[bytes]:
        return [array.content for array in self.arrays]

    def end(self) -> None:
        self.copies.close()
        for memory in self.memories:
            memory.release()
        nothing_left(self.driver)


@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("devices", [[0], [0, 0, 0], [0, 1, 2, 3], [3, 1, 1]])
def test_all_get_it_and_the_host_sends_it_once(devices: list[int], turn: int) -> None:
    data = content(LENGTH)
    with fake(4, delay=0.0005) as driver:
        rooms = Rooms(driver, devices)
        rooms.spread(data, [rooms.all()], turn)
        assert rooms.copies.settle(WAIT)
        assert rooms.contents == [data] * len(devices)
        assert (driver.to_devices, driver.to_peers) == (LENGTH, LENGTH * (len(devices) - 1))
        rooms.end()


def test_rows_lie_end_to_end_there() -> None:
    data = content(LENGTH)
    with fake(2, delay=0.0005) as driver:
        rooms = Rooms(driver, [0, 1])
        one, two = rooms.memories
        rooms.spread(data, [Part(10, 7, [(one, 3), (two, 0)], 100, 20), Part(17, 13, [(two, 1000)], 99, 20)])
        assert rooms.copies.settle(WAIT)
        left = b"".join(data[at : at + 7] for at in range(10, 2010, 20))
        right = b"".join(data[at : at + 13] for at in range(17, 1997, 20))
        assert rooms.contents == [
            bytes(3) + left + bytes(LENGTH - 703),
            left + bytes(300) + right + bytes(LENGTH - 1000 - 13 * 99),
        ]
        assert (driver.to_devices, driver.to_peers) == (700 + 13 * 99, 700)
        rooms.end()


def test_strangers_get_it_from_the_host() -> None:
    data = content(LENGTH)
    with fake(4, delay=0.0005, strangers=[(0, 2), (0, 3), (1, 2), (1, 3)], garbling=[(3, 2)]) as driver:
        rooms = Rooms(driver, [0, 1, 2, 3])
        for turn in range(4):
            rooms.spread(data, [rooms.all(turn * 1000, 1000, turn * 1000)], turn)
        assert rooms.copies.settle(WAIT)
        assert rooms.contents == [data[:4000] + bytes(1000)] * 4
        assert (driver.to_devices, driver.to_peers) == (3 * 4000, 4000)
        rooms.end()


def test_by_turns_each_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake(2) as driver:
        rooms, first = Rooms(driver, [0, 1]), []
        to_device = driver.to_device

        def seen(address: int, source: int, length: int, stream: int) -> None:
            first.append(driver.device_of(address))
            to_device(address, source, length, stream)

        monkeypatch.setattr(driver, "to_device", seen)
        for turn in range(4):
            rooms.spread(content(LENGTH), [rooms.all()], turn)
        assert first == [0, 1, 0, 1]
        rooms.end()


def test_parts_go_to_different_gpus() -> None:
    data = content(LENGTH)
    with fake(2, delay=0.0005) as driver:
        rooms = Rooms(driver, [0, 1])
        one, two = rooms.memories
        rooms.spread(data, [Part(0, 1000, [(one, 0)]), Part(1000, 2000, [(two, 7)]), rooms.all(3000, 100, 4000)])
        assert rooms.copies.settle(WAIT)
        assert rooms.contents == [
            data[:1000] + bytes(3000) + data[3000:3100] + bytes(900),
            bytes(7) + data[1000:3000] + bytes(1993) + data[3000:3100] + bytes(900),
        ]
        rooms.end()


def test_a_buffer_comes_back_when_all_have_copied_from_it() -> None:
    with fake(2, strangers=[(0, 1)]) as driver:
        rooms = Rooms(driver, [0, 1])
        pool = load.cuda().arriving
        driver.pause()
        rooms.spread(content(LENGTH), [rooms.all()])
        assert pool.take_at_once(1, 0) is not None, "another is pinned"
        before = pool.pinned_bytes
        driver.resume()
        assert rooms.copies.settle(WAIT)
        assert pool.take_at_once(1, 0) is not None, "the first is used again"
        assert pool.pinned_bytes == before


def test_nothing_goes_on_before_memory_is_ready() -> None:
    """Of who gets it from another GPU, too."""
    data = content(LENGTH)
    with fake(2, delay=0.0005) as driver:
        busy = driver.new_stream(1)
        driver.pause()
        late = Array(driver, bytes(LENGTH), device=1, stream=busy)
        driver.write(late.address, b"x" * LENGTH, busy, 1)
        late.__cuda_array_interface__["stream"] = busy
        memories = [lent(Array(driver, bytes(LENGTH))), lent(late)]
        driver.resume()
        copies = SpreadCopies(load.cuda(), [0, 1])
        buffer = copies.take(LENGTH, 0, wanted)
        buffer.view[:LENGTH] = data
        copies.spread(buffer, [Part(0, LENGTH, [(memory, 0) for memory in memories])], 0)
        assert copies.settle(WAIT)
        assert late.content == data
        copies.close()
        for memory in memories:
            memory.release()
        with driver.on(1):
            driver.end_stream(busy)
        nothing_left(driver)


@pytest.mark.parametrize("call", ["stream", "event", "to_device", "record", "wait", "to_peer"])
def test_what_cannot_be_begun_leaves_nothing(call: str) -> None:
    data = content(LENGTH)
    with fake(2) as driver:
        rooms = Rooms(driver, [0, 1])
        driver.refuse(call)
        with pytest.raises(GpuFailed, match="OUT_OF_MEMORY"):
            rooms.spread(data, [rooms.all()])
        rooms.spread(data, [rooms.all()])
        assert rooms.copies.settle(WAIT)
        assert rooms.contents == [data, data]
        rooms.end()


def test_one_gpu_that_is_lost_leaves_nothing_of_the_others() -> None:
    with fake(2) as driver:
        rooms = Rooms(driver, [0, 1])
        rooms.spread(content(LENGTH), [rooms.all()], 0)
        driver.break_down(1)
        with pytest.raises(GpuFailed):
            rooms.spread(content(LENGTH), [rooms.all()], 1)
        rooms.copies.close()
        for memory in rooms.memories:
            memory.release()
        load.cuda().trim()
        with driver.on(0):  # whose streams and events were ended all the same
            assert not [each for each in driver._events.values() if each.device == 0]
            assert len([each for each in driver._streams.values() if each.device == 0]) == 1
