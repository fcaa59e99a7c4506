"""The rules of CUDA that the fake keeps, and that the copies rest on, on a real GPU."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable

import pytest

from engine.cuda.driver import LEGACY_STREAM
from engine.cuda.load import Cuda
from engine.errors import GpuFailed

WAIT = 60.0
MIB = 1 << 20


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < end
        time.sleep(0.0005)


def view(address: int, length: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * length).from_address(address)).cast("B")


def test_a_copy_ends_when_its_event_is_done(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    driver, room = cuda.driver, torch.zeros(64 * MIB, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    with driver.on(0):
        pinned, stream, event = driver.pin(64 * MIB), driver.stream(), driver.event()
        view(pinned, 64 * MIB)[:] = b"\x5a" * (64 * MIB)
        driver.to_device(room.data_ptr(), pinned, 64 * MIB, stream)
        driver.record(event, stream)
        until(lambda: driver.done(event))
        assert bool((room == 0x5A).all())
        room.fill_(7)
        torch.cuda.synchronize()
        driver.to_host(pinned, room.data_ptr(), 64 * MIB, stream)
        driver.record(event, stream)
        until(lambda: driver.done(event))
        assert view(pinned, 64 * MIB)[:8] == b"\7" * 8
        driver.end_event(event)
        driver.end_stream(stream)
        driver.unpin(pinned)


@pytest.mark.parametrize("row", [1, 16, 128, 5000])
def test_rows_lie_end_to_end_on_the_gpu(cuda: Cuda, row: int) -> None:
    driver, rows, stride = cuda.driver, 300, 10_000
    data = os.urandom(rows * stride)
    with driver.on(0):
        pinned, memory, stream, event = (
            driver.pin(len(data)),
            driver.memory(rows * row),
            driver.stream(),
            driver.event(),
        )
        try:
            view(pinned, len(data))[:] = data
            driver.rows_to_device(memory, pinned + 3, row, stride, rows, stream)
            driver.to_host(pinned, memory, rows * row, stream)
            driver.record(event, stream)
            until(lambda: driver.done(event))
            expected = b"".join(data[at : at + row] for at in range(3, len(data), stride))
            assert bytes(view(pinned, rows * row)) == expected
        finally:
            driver.end_event(event)
            driver.end_stream(stream)
            driver.end_memory(memory)
            driver.unpin(pinned)


def test_an_event_is_not_done_before_what_it_was_recorded_behind(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    driver, busy = cuda.driver, torch.cuda.Stream(device=0)
    with torch.cuda.stream(busy):
        torch.cuda._sleep(500_000_000)
    with driver.on(0):
        stream, behind, after = driver.stream(), driver.event(), driver.event()
        driver.record(behind, busy.cuda_stream)
        assert not driver.done(behind)
        driver.wait(stream, behind)
        driver.record(after, stream)
        assert not driver.done(after), "one stream waits for the other"
        until(lambda: driver.done(after))
        assert driver.done(behind)
        for event in (behind, after):
            driver.end_event(event)
        driver.end_stream(stream)


def test_an_event_may_be_ended_before_it_is_done(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    driver, busy = cuda.driver, torch.cuda.Stream(device=0)
    with torch.cuda.stream(busy):
        torch.cuda._sleep(100_000_000)
    with driver.on(0):
        stream, event = driver.stream(), driver.event()
        driver.record(event, busy.cuda_stream)
        driver.wait(stream, event)
        driver.end_event(event)
        driver.end_stream(stream)
    torch.cuda.synchronize()


def test_our_stream_does_not_wait_for_the_default_one(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    driver = cuda.driver
    torch.cuda._sleep(500_000_000)
    with driver.on(0):
        stream, ours, default = driver.stream(), driver.event(), driver.event()
        driver.record(default, LEGACY_STREAM)
        driver.record(ours, stream)
        until(lambda: driver.done(ours))
        assert not driver.done(default)
        until(lambda: driver.done(default))
        for event in (ours, default):
            driver.end_event(event)
        driver.end_stream(stream)


def test_a_graph_that_another_thread_captures_is_not_spoilt(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    driver, counted, source = cuda.driver, torch.zeros(8, device="cuda:0"), torch.ones(8, device="cuda:0")
    torch.cuda.synchronize()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            with driver.on(0):
                pinned, stream, event = driver.pin(4096), driver.stream(), driver.event()
                driver.to_host(pinned, source.data_ptr(), 32, stream)
                driver.record(event, stream)
                until(lambda: driver.done(event))
                driver.end_event(event)
                driver.end_stream(stream)
                driver.unpin(pinned)
        except BaseException as error:
            failed.append(error)

    graph, thread = torch.cuda.CUDAGraph(), threading.Thread(target=serve)
    with torch.cuda.graph(graph, capture_error_mode="global"):
        counted += 1
        thread.start()
        thread.join(WAIT)
    assert failed == []
    graph.replay()
    graph.replay()
    assert counted.tolist() == [2.0] * 8


def test_where_memory_lies(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    for number in range(torch.cuda.device_count()):
        made = torch.zeros(1000, device=f"cuda:{number}")
        assert cuda.driver.device_of(made.data_ptr() + 500) == number
    with pytest.raises(GpuFailed, match="cuPointerGetAttribute failed with CUDA_ERROR_INVALID_VALUE"):
        cuda.driver.device_of(0xDEAD0000)


def test_the_programs_own_device_stays_set(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    last = torch.cuda.device_count() - 1
    torch.cuda.set_device(last)
    with cuda.driver.on(0):
        cuda.driver.end_event(cuda.driver.event())
    assert torch.cuda.current_device() == last
    assert torch.zeros(1, device="cuda").device.index == last
    torch.cuda.set_device(0)


def test_handles_and_memory_end_once(cuda: Cuda) -> None:
    driver = cuda.driver
    with driver.on(0):
        pinned = driver.pin(4096)
        driver.unpin(pinned)
        with pytest.raises(GpuFailed, match="cuMemFreeHost"):
            driver.unpin(pinned)


def test_a_gpu_that_is_not_there(cuda: Cuda) -> None:
    with pytest.raises(GpuFailed, match="cuDeviceGet failed with CUDA_ERROR_INVALID_DEVICE"), cuda.driver.on(1000):
        pass
