"""The fake keeps CUDA's rules: else what is tested on it proves nothing. Each was read in CUDA's own description."""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from pathlib import Path

import pytest

from engine.cuda.driver import LEGACY_STREAM
from engine.cuda.fake_driver import FakeDriver
from engine.errors import GpuFailed
from tests.engine.cuda.gpus import WAIT


@pytest.fixture
def gpu():
    driver = FakeDriver(2)
    yield driver
    driver.close()


def see_done(driver: FakeDriver, event: int) -> None:
    until = time.monotonic() + WAIT
    while not driver.done(event):
        assert time.monotonic() < until
        time.sleep(0.001)


def filled(driver: FakeDriver, data: bytes) -> int:
    address = driver.pin(len(data))
    memoryview(driver.pinned[address]).cast("B")[:] = data
    return address


def test_a_copy_reads_what_is_there_when_it_is_done(gpu: FakeDriver) -> None:
    room = gpu.allocate(bytes(4))
    with gpu.on(0):
        pinned = filled(gpu, b"abcd")
        stream, event = gpu.stream(), gpu.event()
        gpu.pause()
        gpu.to_device(room, pinned, 4, stream)
        gpu.record(event, stream)
        assert not gpu.done(event)
        assert gpu.read(room) == bytes(4)
        memoryview(gpu.pinned[pinned]).cast("B")[:] = b"late"
        gpu.resume()
        see_done(gpu, event)
    assert gpu.read(room) == b"late"


def test_a_stream_waits_for_another_only_where_that_is_said(gpu: FakeDriver) -> None:
    room = gpu.allocate(b"before")
    with gpu.on(0):
        first, second = gpu.stream(), gpu.stream()
        event, end = gpu.event(), gpu.event()
        gpu.pause()
        gpu.write(room, b"after!", first)
        gpu.record(event, first)
        gpu.wait(second, event)
        target = gpu.pin(6)
        gpu.to_host(target, room, 6, second)
        gpu.record(end, second)
        gpu.resume()
        see_done(gpu, end)
    assert bytes(gpu.pinned[target]) == b"after!"


def test_contexts_are_a_threads_own(gpu: FakeDriver) -> None:
    found: list[Exception] = []

    def elsewhere() -> None:
        try:
            gpu.stream()
        except GpuFailed as error:
            found.append(error)

    with gpu.on(0):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(WAIT)
    assert "CUDA_ERROR_INVALID_CONTEXT" in str(found[0])
    with gpu.on(0):
        stream = gpu.stream()
        with gpu.on(1), pytest.raises(GpuFailed, match="INVALID_HANDLE"):
            gpu.end_stream(stream)
        gpu.end_stream(stream)  # what was set before has come back


def test_handles_end_once(gpu: FakeDriver) -> None:
    with gpu.on(0):
        event, stream = gpu.event(), gpu.stream()
        gpu.end_event(event)
        gpu.end_stream(stream)
        for call in (lambda: gpu.end_event(event), lambda: gpu.done(event), lambda: gpu.end_stream(stream)):
            with pytest.raises(GpuFailed, match="INVALID_HANDLE"):
                call()


def test_memory_that_was_freed(gpu: FakeDriver) -> None:
    room = gpu.allocate(bytes(8), 1)
    assert gpu.device_of(room + 7) == 1
    with pytest.raises(GpuFailed, match="INVALID_VALUE"):
        gpu.device_of(room + 8)
    with gpu.on(1):
        pinned, event = filled(gpu, b"12345678"), gpu.event()
        gpu.pause()
        gpu.to_device(room, pinned, 8, LEGACY_STREAM)
        gpu.record(event, LEGACY_STREAM)
        gpu.free(room)
        with pytest.raises(GpuFailed, match="INVALID_VALUE"):
            gpu.to_device(room, pinned, 8, LEGACY_STREAM)
        gpu.resume()
        with pytest.raises(GpuFailed, match="ILLEGAL_ADDRESS") as caught:
            see_done(gpu, event)
        assert "end this process" in caught.value.hint
        with pytest.raises(GpuFailed, match="ILLEGAL_ADDRESS"):
            gpu.event()
    with gpu.on(0):
        gpu.end_event(gpu.event())


def test_pinned_memory_is_counted_and_bounded() -> None:
    driver = FakeDriver(pinnable=100)
    with driver.on(0):
        first = driver.pin(60)
        with pytest.raises(GpuFailed, match="OUT_OF_MEMORY") as caught:
            driver.pin(60)
        assert "ulimit -l" in caught.value.hint
        driver.unpin(first)
        with pytest.raises(GpuFailed, match="INVALID_VALUE"):
            driver.unpin(first)
        room = driver.allocate(bytes(10))
        pinned = filled(driver, bytes(10))
        driver.pause()
        driver.to_device(room, pinned, 10, LEGACY_STREAM)
        driver.unpin(pinned)
        assert driver.freed_in_use == 1
    driver.close()
    assert driver.most_pinned_bytes == 60


def test_memory_that_is_not_pinned_is_copied_at_once(gpu: FakeDriver) -> None:
    room = gpu.allocate(b"abcd")
    target = bytearray(4)
    with gpu.on(0):
        gpu.to_host(ctypes.addressof((ctypes.c_char * 4).from_buffer(target)), room, 4, LEGACY_STREAM)
    assert target == b"abcd"
    assert gpu.pageable_copies == 1


def test_copies_from_gpu_to_gpu_are_done_late_too(gpu: FakeDriver) -> None:
    here, there = gpu.allocate(b"abcd"), gpu.allocate(bytes(4), 1)
    with gpu.on(0):
        gpu.open_peer(1)
        stream, event = gpu.stream(), gpu.event()
        gpu.pause()
        gpu.to_peer(there, here, 4, stream, 1)
        gpu.record(event, stream)
        gpu.write(here, b"late")
        assert gpu.read(there) == bytes(4)
        gpu.resume()
        see_done(gpu, event)
    assert gpu.read(there) == b"late"
    assert (gpu.to_peers, gpu.copied_within_host) == (4, 0)


def test_what_was_not_opened_goes_by_way_of_the_host(gpu: FakeDriver) -> None:
    here, there = gpu.allocate(b"abcd"), gpu.allocate(bytes(4), 1)
    with gpu.on(1):
        gpu.open_peer(0)  # which is the other way
    with gpu.on(0):
        gpu.to_peer(there, here, 4, LEGACY_STREAM, 1)
        gpu.to_peer(here + 2, here, 2, LEGACY_STREAM, 0)
        for address, device in ((here, 1), (there, 0), (there + 1, 1)):
            with pytest.raises(GpuFailed, match="INVALID_VALUE"):
                gpu.to_peer(address, here, 4, LEGACY_STREAM, device)
    assert gpu.copied_within_host == 4


def test_strangers_are_no_peers() -> None:
    driver = FakeDriver(3, strangers=[(0, 2)])
    assert [driver.reaches(0, other) for other in range(3)] == [False, True, False]
    with pytest.raises(GpuFailed, match="INVALID_DEVICE"):
        driver.reaches(0, 3)
    with driver.on(2):
        driver.open_peer(1)
        with pytest.raises(GpuFailed, match="PEER_ACCESS_UNSUPPORTED"):
            driver.open_peer(0)
    driver.close()


def test_memory_that_was_asked_for_ends_once(gpu: FakeDriver) -> None:
    with gpu.on(1):
        room = gpu.memory(100)
        assert gpu.device_of(room) == 1
        assert gpu.open["memory"] == 1
        gpu.end_memory(room)
        with pytest.raises(GpuFailed, match="cuMemFree failed with CUDA_ERROR_INVALID_VALUE"):
            gpu.end_memory(room)
    assert gpu.open["memory"] == 0


def test_another_process_opens_memory_and_reads_it_when_its_owner_has_gone(tmp_path: Path) -> None:
    one, other = FakeDriver(2, shared=tmp_path), FakeDriver(2, shared=tmp_path)
    theirs = one.allocate(b"abcdefgh", 1)
    with one.on(1):
        handle, offset = one.export(theirs + 2)
    assert (len(handle), offset) == (64, 2)
    one.write(theirs, b"ABCD")
    one.close()
    mine = other.allocate(bytes(4), 0)
    with other.on(0):
        opened = other.open_exported(handle)
        assert other.open["opened"] == 1
        event = other.event()
        other.to_peer(mine, opened + offset, 4, LEGACY_STREAM, 0)
        other.record(event, LEGACY_STREAM)
        see_done(other, event)
        other.close_exported(opened)
        with pytest.raises(GpuFailed, match="cuIpcCloseMemHandle"):
            other.close_exported(opened)
    assert other.read(mine) == b"CDef"
    other.free(mine)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"ABCDefgh"]
    other.close()


def test_what_cannot_be_exported_or_opened(gpu: FakeDriver, tmp_path: Path) -> None:
    room = gpu.allocate(b"abcd")
    with gpu.on(0), pytest.raises(GpuFailed, match="cuIpcGetMemHandle failed with CUDA_ERROR_INVALID_VALUE"):
        gpu.export(room)
    shared = FakeDriver(2, shared=tmp_path, strangers=[(0, 1)])
    room = shared.allocate(b"abcd")
    with shared.on(0):
        handle = shared.export(room).handle
    with shared.on(1), pytest.raises(GpuFailed, match="PEER_ACCESS_UNSUPPORTED"):
        shared.open_exported(handle)
    shared.free(room)
    with shared.on(0), pytest.raises(GpuFailed, match="cuIpcOpenMemHandle failed with CUDA_ERROR_INVALID_VALUE"):
        shared.open_exported(handle)
    assert list(tmp_path.iterdir()) == []
    shared.close()


def test_memory_that_is_there_is_pinned_once(gpu: FakeDriver) -> None:
    room, target = mmap.mmap(-1, 8192), gpu.allocate(bytes(4))
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    room[4096:4100] = b"abcd"
    with gpu.on(0):
        gpu.register(address, 8192)
        with pytest.raises(GpuFailed, match="ALREADY_REGISTERED"):
            gpu.register(address + 4096, 4096)
        event = gpu.event()
        gpu.to_device(target, address + 4096, 4, LEGACY_STREAM)
        gpu.record(event, LEGACY_STREAM)
        see_done(gpu, event)
        gpu.unregister(address)
        with pytest.raises(GpuFailed, match="NOT_REGISTERED"):
            gpu.unregister(address)
    assert gpu.read(target) == b"abcd"
    assert (gpu.pageable_copies, gpu.open["pinned"]) == (0, 0)
