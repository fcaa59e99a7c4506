"""Copies of any length, and bytes that are filled in place."""

from __future__ import annotations

import errno
import mmap
import threading
from pathlib import Path

import pytest

from engine.files.system import system
from engine.memory.copying import HUGE_PAGE, LARGE, MAPPED, address_of, copied, copy, unfilled, view_of

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


@pytest.mark.parametrize("length", [MAPPED - 1, MAPPED, MAPPED + 12345])
@pytest.mark.parametrize("fails", [False, True])
def test_large_ones_are_asked_for_in_huge_pages_and_are_theirs_alone(
    monkeypatch: pytest.MonkeyPatch, length: int, fails: bool
) -> None:
    """Nothing beside them is touched, and a kernel that has no such pages is no matter."""
    asked: list[tuple[int, int]] = []

    def prefer(address: int, size: int) -> None:
        asked.append((address, size))
        if fails:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(system, "prefer_huge_pages", prefer)
    made, room = unfilled(length)
    room[:3], room[-3:] = b"abc", b"xyz"
    assert (len(made), made[:3], made[-3:]) == (length, b"abc", b"xyz")
    begin = address_of(room)
    assert len(asked) == (length >= MAPPED)
    for address, size in asked:
        assert address % HUGE_PAGE == size % HUGE_PAGE == 0
        assert begin <= address
        assert address + size <= begin + length
        assert size > length - 2 * HUGE_PAGE


def test_the_kernel_takes_what_is_asked_of_it() -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("NO TEST OF HUGE PAGES: this kernel has none")
    memory = mmap.mmap(-1, 2 * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    system.prefer_huge_pages(-(-address_of(memory) // HUGE_PAGE) * HUGE_PAGE, HUGE_PAGE)
    flags = [line for line in Path("/proc/self/smaps").read_text().splitlines() if line.startswith("VmFlags:")]
    assert any(" hg" in line for line in flags)


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
