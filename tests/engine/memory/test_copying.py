"""Copies of any length, and bytes that are filled in place."""

from __future__ import annotations

import threading

import pytest

from engine.memory.copying import LARGE, address_of, copied, copy, unfilled, view_of

LENGTHS = [1, 2, 255, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 7]


def pattern(length: int) -> bytes:
    return bytes(n * 7 % 251 for n in range(length))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_copy_is_exact_and_touches_nothing_beside(length: int) -> None:
    data = pattern(length)
    room = bytearray(b"\xaa" * (length + 2))
    copy(memoryview(room)[1:-1], memoryview(data))
    assert room == b"\xaa" + data + b"\xaa"
    assert copied(memoryview(data)) == data


@pytest.mark.parametrize("length", [LARGE - 1, LARGE])
def test_lengths_that_differ_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|size|structure"):
        copy(memoryview(bytearray(length)), memoryview(bytes(length + 1)))


@pytest.mark.parametrize("length", LENGTHS)
def test_new_bytes_are_filled_before_anybody_sees_them(length: int) -> None:
    data = pattern(length)
    made, room = unfilled(length)
    other, other_room = unfilled(length)
    room[:] = data
    other_room[:] = bytes(length)
    assert made == data
    assert hash(made) == hash(data)
    assert other == bytes(length)
    assert bytes(1) == b"\0", "a byte of the interpreter's own was written to"


def test_a_view_of_an_address_is_that_memory() -> None:
    data = bytearray(b"0123456789")
    view = view_of(address_of(data) + 2, 3)
    view[:] = b"abc"
    assert data == b"01abc56789"
    assert view_of(address_of(data), 4, readonly=True).readonly


def test_other_threads_run_during_a_large_copy() -> None:
    ran = threading.Event()
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            ran.set()

    thread = threading.Thread(target=count)
    source, room = memoryview(bytes(32 << 20)), memoryview(bytearray(32 << 20))
    thread.start()
    ran.wait(30)
    try:
        for _ in range(1000):
            ran.clear()
            copy(room, source)
            if ran.is_set():
                break
        else:
            pytest.fail("no other thread ran during a thousand copies")
    finally:
        stop.set()
        thread.join()
