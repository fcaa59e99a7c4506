"""Buffers in memory that processes share: each writes its own, and reads all."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator

import pytest

from engine.cuda import load
from engine.cuda.fake_driver import FakeDriver
from engine.memory.shared import SharedMemory
from p2pstore.errors import GpuFailed, UsageError
from p2pstore.sharing.ring import ALL_BYTES, LEAST_BUFFERS, MOST_BUFFERS, PART_BYTES, Ring, Unreadable, buffers_for
from tests.engine.cuda.gpus import fake, nothing_left, without_torch

MIB = 1 << 20
CHUNK = 64 * MIB
WAIT = 60.0


def wanted() -> None:
    """A check that never objects."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    without_torch(monkeypatch)
    with fake(2) as driver:
        yield driver
        nothing_left(driver)


def test_what_one_puts_into_its_buffer_the_others_read(gpu: FakeDriver) -> None:
    memory = SharedMemory(2 * LEAST_BUFFERS * CHUNK)
    one, other = (Ring(memory.fd, me, 2, CHUNK, load.cuda(), me) for me in range(2))
    memory.close()
    mine, theirs = one.take(wanted), other.take(wanted)
    mine.view[:4], theirs.view[:4] = b"mine", b"thei"
    assert ctypes.string_at(other.address(0, one.number_of(mine)), 4) == b"mine"
    assert ctypes.string_at(one.address(1, other.number_of(theirs)), 4) == b"thei"
    for process, number in ((2, 0), (0, -1), (0, LEAST_BUFFERS), (1, 1 << 31)):
        with pytest.raises(ValueError, match="no such buffer"):
            one.address(process, number)
    for ring in (one, other):
        ring.close()
        ring.close()


def test_a_buffer_is_waited_for_and_the_wait_can_end(gpu: FakeDriver) -> None:
    memory = SharedMemory(LEAST_BUFFERS * CHUNK)
    ring = Ring(memory.fd, 0, 2, CHUNK, load.cuda(), 0)
    memory.close()
    taken = [ring.take(wanted) for _ in range(LEAST_BUFFERS)]
    assert len({buffer.address for buffer in taken}) == LEAST_BUFFERS
    threading.Timer(0.1, ring.give, [taken[2]]).start()
    assert ring.take(wanted) is taken[2]

    def unwanted() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        ring.take(unwanted)
    ring.close()


def test_how_many_buffers_there_are() -> None:
    assert buffers_for(MIB, 2) == MOST_BUFFERS
    assert buffers_for(8 * MIB, 4) == PART_BYTES // (8 * MIB)
    assert buffers_for(8 * MIB, 8) == ALL_BYTES // 8 // (8 * MIB)
    assert buffers_for(64 * MIB, 8) == LEAST_BUFFERS


def test_each_is_pinned_when_it_is_used_first(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    register = gpu.register

    def counted(address: int, length: int) -> None:
        pinned.append(address)
        register(address, length)

    monkeypatch.setattr(gpu, "register", counted)
    small = 16 * MIB
    count = buffers_for(small, 2)
    assert count > LEAST_BUFFERS
    memory = SharedMemory(2 * count * small)
    one, other = (Ring(memory.fd, me, 2, small, load.cuda(), me) for me in range(2))
    memory.close()
    for _ in range(2):
        taken = [one.take(wanted) for _ in range(LEAST_BUFFERS)]
        for buffer in taken:
            one.give(buffer)
    assert len(pinned) == 2 * LEAST_BUFFERS, "none beyond those that were pinned at first"
    taken = [one.take(wanted) for _ in range(count)]
    assert len({buffer.address for buffer in taken}) == count
    assert len(pinned) == count + LEAST_BUFFERS
    for _ in range(2):
        other.address(0, one.number_of(taken[-1]))
    assert len(pinned) == count + LEAST_BUFFERS + 1
    for ring in (one, other):
        ring.close()


def test_where_no_more_can_be_pinned_those_that_are_come_back(gpu: FakeDriver) -> None:
    small = 16 * MIB
    memory = SharedMemory(2 * buffers_for(small, 2) * small)
    one, other = (Ring(memory.fd, me, 2, small, load.cuda(), me) for me in range(2))
    memory.close()
    taken = [one.take(wanted) for _ in range(LEAST_BUFFERS)]
    gpu.refuse("register")
    threading.Timer(0.1, one.give, [taken[1]]).start()
    assert one.take(wanted) is taken[1]
    gpu.refuse("register")
    with pytest.raises(Unreadable, match="cuMemHostRegister"):
        other.address(0, one.number_of(taken[0]))
    for ring in (one, other):
        ring.close()


def test_memory_that_is_not_to_be_had_is_told(gpu: FakeDriver) -> None:
    memory = SharedMemory(LEAST_BUFFERS * CHUNK)
    gpu.refuse("register")
    with pytest.raises(GpuFailed, match="cuMemHostRegister"):
        Ring(memory.fd, 0, 2, CHUNK, load.cuda(), 0)
    memory.close()
    number = os.memfd_create("x")
    with pytest.raises(UsageError, match="no memory of a fixed size"):
        Ring(number, 0, 2, CHUNK, load.cuda(), 0)
    os.close(number)


def test_who_still_writes_to_a_buffer_keeps_the_memory(gpu: FakeDriver) -> None:
    """As a worker of a pull that was given up, inside a read that does not end."""
    memory = SharedMemory(LEAST_BUFFERS * CHUNK)
    ring = Ring(memory.fd, 0, 2, CHUNK, load.cuda(), 0)
    memory.close()
    room = ring.take(wanted).view[:4]
    ring.close()
    room[:] = b"late"
    assert bytes(room) == b"late"


def test_memory_that_is_too_small_is_refused(gpu: FakeDriver) -> None:
    memory = SharedMemory(LEAST_BUFFERS * CHUNK)
    with pytest.raises(UsageError, match="too small"):
        Ring(memory.fd, 1, 2, CHUNK, load.cuda(), 0)
    memory.close()
