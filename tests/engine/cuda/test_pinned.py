"""The ring of pinned buffers: never more than its limit, never a buffer twice, and nobody who waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from engine.cuda import pinned
from engine.cuda.driver import LEGACY_STREAM
from engine.cuda.fake_driver import FakeDriver
from engine.cuda.pinned import LEAST_BYTES, PinnedPool, until_done
from engine.errors import GpuFailed
from tests.engine.cuda.gpus import WAIT

MIB = 1 << 20


def no() -> None:
    pass


def given_up_after(seconds: float) -> Callable[[], None]:
    """A check that objects when a test has waited so long."""
    until = time.monotonic() + seconds

    def check() -> None:
        assert time.monotonic() < until

    return check


def fly(driver: FakeDriver, pool: PinnedPool, buffer) -> None:
    with driver.on(0):
        event = driver.event()
        driver.record(event, LEGACY_STREAM)
    pool.give_after(buffer, 0, LEGACY_STREAM, event)


def test_a_buffer_is_used_again(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, 8 * MIB)
    first = pool.take(100, 0, no)
    assert len(first.view) == LEAST_BYTES
    pool.give(first)
    assert pool.take(MIB, 0, no) is first
    second = pool.take(3 * MIB, 0, no)
    assert len(second.view) == 4 * MIB
    pool.give(first)
    pool.give(second)
    assert pool.take(5, 0, no) is first, "the smallest that will do"
    assert pool.pinned_bytes == 5 * MIB
    pool.give(first)
    pool.trim()
    assert pool.pinned_bytes == 0
    assert pool.most_pinned_bytes == gpu.most_pinned_bytes == 5 * MIB
    assert not gpu.pinned


def test_one_that_several_streams_copy_from_comes_back_with_the_last(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, MIB)
    buffer = pool.take(100, 0, no)
    ends = []
    with gpu.on(0):
        busy = gpu.stream()
        gpu.pause()
        for stream in (LEGACY_STREAM, busy):
            event = gpu.event()
            gpu.record(event, stream)
            ends.append((0, stream, event))
    pool.give_after_all(buffer, ends)
    gpu.step(1)
    assert pool.take_at_once(100, 0) is None
    gpu.resume()
    assert pool.take(100, 0, given_up_after(WAIT)) is buffer
    assert gpu.open["events"] == 0


def test_one_that_is_copied_from_comes_back_when_that_is_over(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, MIB)
    buffer = pool.take(MIB, 0, no)
    gpu.pause()
    fly(gpu, pool, buffer)
    assert pool.take_at_once(1, 0) is None
    timer = threading.Timer(0.05, gpu.resume)
    timer.start()
    assert pool.take(MIB, 0, no) is buffer
    timer.join(WAIT)
    assert gpu.open["events"] == 0


def test_it_is_waited_for_shortly_before_more_is_pinned(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, 8 * MIB)
    buffer = pool.take(MIB, 0, no)
    gpu.pause()
    fly(gpu, pool, buffer)
    other = pool.take(MIB, 0, no)
    assert other is not buffer
    gpu.resume()
    until = time.monotonic() + WAIT
    while gpu.open["events"]:
        pool.trim()
        assert time.monotonic() < until
    assert pool.pinned_bytes == MIB
    assert pool.take_at_once(MIB, 0) is not None
    assert gpu.most_pinned_bytes == 2 * MIB


def test_small_ones_make_room_for_a_large_one(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, 4 * MIB)
    small = [pool.take(MIB, 0, no) for _ in range(4)]
    for each in small[:3]:
        pool.give(each)
    large = pool.take(2 * MIB, 0, no)
    assert len(large.view) == 2 * MIB
    assert pool.pinned_bytes <= 4 * MIB
    with pytest.raises(ValueError, match="more than may be pinned"):
        pool.take(5 * MIB, 0, no)


def test_a_wait_can_be_given_up(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, MIB)
    pool.take(MIB, 0, no)
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.take(MIB, 0, check)


def test_a_system_that_has_no_more_to_pin() -> None:
    driver = FakeDriver(pinnable=2 * MIB)
    pool = PinnedPool(driver, 8 * MIB)
    first = pool.take(MIB, 0, no)
    timer = threading.Timer(0.05, pool.give, (first,))
    timer.start()
    large = pool.take(2 * MIB, 0, no)  # waits for the first, and unpins it
    timer.join(WAIT)
    pool.give(large)
    with pytest.raises(GpuFailed, match="cuMemHostAlloc failed with CUDA_ERROR_OUT_OF_MEMORY"):
        pool.take(4 * MIB, 0, no)
    assert pool.pinned_bytes == 0
    assert not driver.pinned
    driver.close()


def test_buffers_of_a_gpu_that_broke_come_back(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, MIB)
    buffer = pool.take(MIB, 0, no)
    gpu.pause()
    fly(gpu, pool, buffer)
    gpu.break_down()
    assert pool.take(MIB, 0, no) is buffer
    with gpu.on(0), pytest.raises(GpuFailed):
        gpu.event()


def test_a_gpu_that_is_lost_is_told_at_once_though_others_hold_buffers(gpu: FakeDriver) -> None:
    """Only what the system lacks is there again when they come back."""
    pool = PinnedPool(gpu, 8 * MIB)
    held = pool.take(MIB, 0, no)
    gpu.break_down()
    for _ in range(2):
        with pytest.raises(GpuFailed, match="cuMemHostAlloc failed with CUDA_ERROR_ILLEGAL_ADDRESS"):
            pool.take(2 * MIB, 0, given_up_after(WAIT))
    assert pool.pinned_bytes == len(held.view)


def test_many_threads_keep_to_the_limit(gpu: FakeDriver) -> None:
    pool = PinnedPool(gpu, 6 * MIB)
    held: set[int] = set()
    lock = threading.Lock()
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(30):
            buffer = pool.take((1 + (number + turn) % 2) * MIB, 0, no)
            with lock:
                if buffer.address in held:
                    wrong.append("a buffer was given twice")
                held.add(buffer.address)
            with lock:
                held.discard(buffer.address)
            fly(gpu, pool, buffer) if turn % 3 else pool.give(buffer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert wrong == []
    assert gpu.most_pinned_bytes <= 6 * MIB
    assert pool.most_pinned_bytes <= 6 * MIB
    until = time.monotonic() + WAIT
    while gpu.open["events"]:
        pool.trim()
        assert time.monotonic() < until
    assert gpu.freed_in_use == 0


def test_until_done(gpu: FakeDriver) -> None:
    gpu.pause()
    with gpu.on(0):
        event = gpu.event()
        gpu.record(event, LEGACY_STREAM)
    assert not until_done(gpu, 0, event, time.monotonic() + 0.01, no)
    gpu.resume()
    assert until_done(gpu, 0, event, time.monotonic() + WAIT, no)
    assert gpu.open["events"] == 0


def test_a_good_part_is_pinned_before_anything_is_waited_for(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "FREELY_BYTES", 4 * MIB)
    monkeypatch.setattr(pinned, "SHORTLY_SECONDS", 3600.0)
    pool = PinnedPool(gpu, 8 * MIB)
    gpu.pause()
    for _ in range(4):  # as long as none of them comes back
        fly(gpu, pool, pool.take(MIB, 0, given_up_after(WAIT)))
    assert pool.pinned_bytes == 4 * MIB
    threading.Timer(0.1, gpu.resume).start()
    pool.give(pool.take(MIB, 0, given_up_after(WAIT)))
    assert pool.pinned_bytes == 4 * MIB, "then one that comes back is waited for"
    pool.trim()
