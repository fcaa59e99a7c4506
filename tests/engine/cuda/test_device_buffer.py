"""What peers read of a GPU is what lies there, whole or in parts, beside memory of the host."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from engine.cuda.copies import PIECE_BYTES
from engine.cuda.device_buffer import DeviceBuffer
from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.fake_driver import FakeDriver
from engine.errors import GpuFailed
from tests.engine.cuda.gpus import WAIT, Array, fake, nothing_left
from tests.p2pstore.samples import content

FIRST, HOST, SECOND = content(PIECE_BYTES + 100), content(50, 2), content(3 * PIECE_BYTES + 7, 3)
WHOLE = FIRST + HOST + SECOND


def lent(source: Any) -> DeviceMemory:
    found = device_memory(source, "it")
    assert isinstance(found, DeviceMemory)
    return found


def made(driver: FakeDriver) -> DeviceBuffer:
    views = [
        memoryview(b""),
        lent(Array(driver, FIRST)),
        memoryview(HOST),
        memoryview(b""),
        lent(Array(driver, SECOND)),
    ]
    return DeviceBuffer("it", views)


RANGES = [
    (0, len(WHOLE)),
    (0, 1),
    (len(FIRST) - 3, 60),
    (len(FIRST) + 1, 10),
    (len(WHOLE) - 5, 5),
    (7, 2 * PIECE_BYTES),
]


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_it_is_read(gpu: FakeDriver, offset: int, length: int) -> None:
    buffer = made(gpu)
    room = bytearray(length)
    buffer.read_into(offset, memoryview(room))
    assert room == WHOLE[offset : offset + length]
    assert buffer.view(offset, length) is None
    assert buffer.memory_run(offset, length) is None
    assert buffer.file_run(offset, length) is None
    buffer.close()
    nothing_left(gpu)


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_it_is_sent(gpu: FakeDriver, offset: int, length: int) -> None:
    buffer = made(gpu)
    here, there = socket.socketpair()
    received = bytearray()

    def receive() -> None:
        while data := there.recv(1 << 16):
            received.extend(data)

    thread = threading.Thread(target=receive)
    thread.start()
    with here:
        sent = 0
        while sent < length:
            sent += buffer.send(here, offset + sent, length - sent)
    thread.join(WAIT)
    there.close()
    assert received == WHOLE[offset : offset + length]
    buffer.close()
    nothing_left(gpu)


def test_a_peer_that_takes_no_more_is_told_how_much_was_sent(gpu: FakeDriver) -> None:
    buffer = made(gpu)
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        sent = buffer.send(here, 0, len(WHOLE))
        assert 0 < sent < len(WHOLE)
        with pytest.raises(BlockingIOError):
            buffer.send(here, sent, len(WHOLE) - sent)
        assert there.recv(sent, socket.MSG_WAITALL) == WHOLE[:sent]
    buffer.close()
    nothing_left(gpu)


def test_a_gpu_that_breaks_is_told() -> None:
    with fake() as driver:
        lost: list[tuple[str, str]] = []
        buffer = DeviceBuffer("it", [lent(Array(driver, FIRST))], on_lost=lambda *said: lost.append(said))
        driver.refuse("event")
        with pytest.raises(GpuFailed, match="OUT_OF_MEMORY"):
            buffer.read_into(0, memoryview(bytearray(10)))
        assert lost == [], "it may go well again"
        driver.break_down()
        with pytest.raises(GpuFailed, match="ILLEGAL_ADDRESS"):
            buffer.read_into(0, memoryview(bytearray(10)))
        here, there = socket.socketpair()
        with here, there, pytest.raises(GpuFailed):
            buffer.send(here, 0, 10)
        assert {name for name, _ in lost} == {"it"}
        assert "ILLEGAL_ADDRESS" in lost[0][1]
        buffer.close()


def test_two_gpus_in_one_buffer() -> None:
    with fake(2) as driver:
        buffer = DeviceBuffer("it", [lent(Array(driver, FIRST, device=1)), lent(Array(driver, SECOND))])
        room = bytearray(buffer.length)
        buffer.read_into(0, memoryview(room))
        assert room == FIRST + SECOND
        buffer.close()
        nothing_left(driver)
