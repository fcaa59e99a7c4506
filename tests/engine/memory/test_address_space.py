"""Ranges are found, gated, replaced and let go, whatever is in flight."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import AddressError, UsageError
from engine.memory.address_space import PAGE, SPACE, AddressSpace
from engine.memory.buffers import Buffer, MemoryBuffer


class Recorded(MemoryBuffer):
    """A buffer that knows whether it was closed, and can be told to refuse."""

    def __init__(self, name: str, data: Any, allowed: bool = True) -> None:
        super().__init__(name, data)
        self.closed = False
        self.allowed = allowed

    def ready(self, offset: int, length: int) -> bool:
        return self.allowed

    def close(self) -> None:
        self.closed = True
        super().close()


def read(space: AddressSpace, address: int, length: int) -> bytes:
    with space.resolve(address, length) as lease:
        out = bytearray(length)
        lease.buffer.read_into(lease.offset, memoryview(out))
        return bytes(out)


def test_a_range_lies_in_one_buffer() -> None:
    space = AddressSpace()
    address = space.register(MemoryBuffer("a", bytes(range(100))))
    assert address % PAGE == 0
    assert 0 < address < SPACE
    assert read(space, address, 100) == bytes(range(100))
    assert read(space, address + 99, 1) == b"\x63"
    for bad, length in [
        (address - 1, 1), (address - 1, 2), (address, 101), (address + 99, 2), (address + 100, 1),
        (address, 0), (address, -1), (0, 1), (2**64 - 1, 2**64 - 1), (address, 2**64),
    ]:  # fmt: skip
        with pytest.raises(AddressError):
            space.resolve(bad, length)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3 * PAGE), min_size=1, max_size=40))
def test_buffers_never_overlap(lengths: list[int]) -> None:
    space = AddressSpace()
    for number, length in enumerate(lengths):
        space.register(MemoryBuffer(str(number), bytes(length)))
    found = space.descriptors()
    assert sorted(int(each.name) for each in found) == list(range(len(lengths)))
    for left, right in itertools.pairwise(found):
        assert left.address + left.length < right.address


def test_crowded_space_places_around_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.memory.address_space.SPACE", 200 * PAGE)
    space = AddressSpace()

    def fill() -> None:
        for number in range(200):
            space.register(MemoryBuffer(str(number), bytes(PAGE + 1)))

    with pytest.raises(UsageError, match="no room"):
        fill()
    found = space.descriptors()
    assert len(found) > 10
    for left, right in itertools.pairwise(found):
        assert left.address + 2 * PAGE <= right.address


def test_empty_and_strange_buffers_are_misuse() -> None:
    with pytest.raises(UsageError):
        AddressSpace().register(MemoryBuffer("a", b""))
    with pytest.raises(UsageError):
        MemoryBuffer("a", memoryview(bytes(10))[::2])
    with pytest.raises(UsageError):
        MemoryBuffer("a", b"123", writable=True)


def test_numpy_is_a_buffer() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(12, dtype="<u2").reshape(3, 4)
    space = AddressSpace()
    address = space.register(MemoryBuffer("a", array))
    assert read(space, address, 24) == array.tobytes()
    with pytest.raises(UsageError):
        MemoryBuffer("a", array[:, ::2])


def test_what_is_not_ready_is_refused_and_not_held() -> None:
    space = AddressSpace()
    buffer = Recorded("a", b"abc", allowed=False)
    address = space.register(buffer)
    with pytest.raises(AddressError):
        space.resolve(address, 3)
    assert space.unregister(address)
    assert buffer.closed


def test_replace_leaves_the_old_one_to_its_users() -> None:
    space = AddressSpace()
    old, new = Recorded("a", b"old"), Recorded("a", b"new")
    address = space.register(old)
    lease = space.resolve(address, 3)
    space.replace(address, new)
    assert read(space, address, 3) == b"new"
    assert not old.closed
    out = bytearray(3)
    lease.buffer.read_into(0, memoryview(out))
    assert out == b"old"
    lease.release()
    lease.release()
    assert old.closed
    with pytest.raises(UsageError):
        space.replace(address, MemoryBuffer("a", b"long"))
    with pytest.raises(AddressError):
        space.replace(address + 1, MemoryBuffer("a", b"new"))


def test_unregister_waits_for_users() -> None:
    space = AddressSpace()
    data = bytearray(b"abc")
    address = space.register(MemoryBuffer("a", data))
    lease = space.resolve(address, 3)
    done: list[bool] = []
    waiter = threading.Thread(target=lambda: done.append(space.unregister(address, timeout=30)))
    waiter.start()
    with pytest.raises(BufferError):
        data.extend(b"d")
    lease.release()
    waiter.join()
    assert done == [True]
    data.extend(b"d")
    with pytest.raises(AddressError):
        space.unregister(address)


def test_unregister_that_does_not_wait_says_so() -> None:
    space = AddressSpace()
    buffer = Recorded("a", b"abc")
    address = space.register(buffer)
    with space.resolve(address, 1):
        assert not space.unregister(address)
        assert not buffer.closed
    assert buffer.closed


def test_close_lets_go_of_everything() -> None:
    space = AddressSpace()
    buffers: list[Buffer] = [Recorded(str(number), b"abc") for number in range(3)]
    addresses = [space.register(buffer) for buffer in buffers]
    lease = space.resolve(addresses[1], 1)
    space.close()
    assert [buffer.closed for buffer in buffers] == [True, False, True]  # type: ignore[attr-defined]
    lease.release()
    assert buffers[1].closed  # type: ignore[attr-defined]
    assert space.descriptors() == ()


def test_an_address_of_ones_own() -> None:
    """Programs for upstream's engine name memory by pointers; buffers may adjoin there."""
    space = AddressSpace()
    assert space.register(MemoryBuffer("a", b"a" * 100), at=70_001) == 70_001
    assert space.register(MemoryBuffer("b", b"b" * 50), at=70_101) == 70_101
    assert space.register(MemoryBuffer("c", b"c" * 2), at=69_999) == 69_999
    assert read(space, 70_101, 50) == b"b" * 50
    for at, length in [(70_000, 1), (70_150, 1), (69_990, 20), (60_000, 20_000), (0, 1), (-5, 1), (2**64 - 1, 2)]:
        with pytest.raises(UsageError):
            space.register(MemoryBuffer("d", bytes(length)), at=at)
    space.unregister(70_001)
    assert space.register(MemoryBuffer("e", b"e" * 100), at=70_001) == 70_001
