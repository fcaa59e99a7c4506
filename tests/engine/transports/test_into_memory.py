"""A sink that is memory, of any kind that has the buffer protocol."""

from __future__ import annotations

import array

import pytest

from engine.transports.base import CloningSink, Sink, TakingSink
from engine.transports.into_memory import IntoMemory


def fill(sink: IntoMemory, data: bytes, size: int) -> None:
    while data:
        room = sink.buffer(min(size, len(data)))
        room[:] = data[: len(room)]
        sink.filled(len(room))
        data = data[len(room) :]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_it_fills_from_the_start(size: int) -> None:
    memory = bytearray(10)
    sink = IntoMemory(memoryview(memory))
    fill(sink, b"abcdef", size)
    assert sink.done == 6
    assert memory == b"abcdef\0\0\0\0"
    fill(sink, b"ghij", size)
    assert memory == b"abcdefghij"


def test_there_is_never_more_room_than_memory() -> None:
    sink = IntoMemory(memoryview(bytearray(10)))
    assert len(sink.buffer(100)) == 10
    sink.filled(7)
    assert len(sink.buffer(100)) == 3
    assert len(sink.buffer(2)) == 2


def test_a_part_that_was_filled_only_in_part_goes_on_there() -> None:
    memory = bytearray(4)
    sink = IntoMemory(memoryview(memory))
    sink.buffer(4)[:1] = b"a"
    sink.filled(1)
    sink.buffer(3)[:] = b"bcd"
    sink.filled(3)
    assert memory == b"abcd"


def test_numbers_are_seen_as_bytes() -> None:
    numbers = array.array("I", [0, 0])
    fill(IntoMemory(memoryview(numbers)), bytes(range(8)), 5)
    assert numbers.tobytes() == bytes(range(8))


def test_it_is_a_sink_and_no_more() -> None:
    sink: Sink = IntoMemory(memoryview(bytearray(1)))
    assert not isinstance(sink, CloningSink)
    assert not isinstance(sink, TakingSink)
