"""The pool of registered memory, by what upstream's own tests of theirs ask for; and what is used again."""

from __future__ import annotations

import ctypes
import gc
import threading
from typing import Any

import pytest

from p2pstore.kv.client import buffer_pool
from p2pstore.kv.client.buffer_pool import BufferPool, MooncakeHostMemAllocator

MIB = 1 << 20
WAIT = 60


class Store:
    """What a pool needs of one."""

    def __init__(self, local_buffer_size: int = 4 * MIB, health: int = 0) -> None:
        self.local_buffer_size = local_buffer_size
        self.registered: dict[int, int] = {}
        self.refuses = 0
        self._health = health

    def health_check(self) -> int:
        return self._health

    def register_buffer(self, pointer: int, size: int) -> int:
        if not self.refuses:
            self.registered[pointer] = size
        return self.refuses

    def unregister_buffer(self, pointer: int) -> int:
        del self.registered[pointer]
        return 0


def test_memory_is_lent_registered_and_used_again() -> None:
    store = Store()
    pool = BufferPool(store, min_size_class=4096)
    lease = pool.acquire(1234)
    assert (lease.size, len(lease.buffer)) == (1234, 1234)
    lease.buffer[:4] = b"abcd"
    assert ctypes.string_at(lease.ptr, 4) == b"abcd"
    assert store.registered == {lease.ptr: 4096}
    first = lease.ptr
    lease.release()
    lease.release()
    with pytest.raises(RuntimeError, match="lease is closed"):
        _ = lease.ptr
    with pool.buffer(4000) as lease:
        assert lease.ptr == first
        assert lease.ptr % 4096 == 0
    pool.close()
    pool.close()
    assert store.registered == {}
    with pytest.raises(RuntimeError, match="is closed"):
        pool.acquire(1)


@pytest.mark.parametrize("size", [0, 1, 128 * 1024 + 1])
def test_any_size(size: int) -> None:
    pool = BufferPool(Store(), MIB, max_size_class=128 * 1024)
    with pool.acquire(size) as lease:
        assert (lease.size, len(lease.buffer)) == (size, size)
    pool.close()


def test_it_holds_the_local_buffer_at_least_and_twice_that_by_default() -> None:
    pool = BufferPool(Store())
    first, second = pool.acquire(4 * MIB), pool.acquire(4 * MIB - 1, block=False)
    with pytest.raises(RuntimeError, match="exhausted"):
        pool.acquire(2 * MIB, block=False)
    first.release()
    small = [pool.acquire(MIB, block=False) for _ in range(4)]
    for lease in (second, *small):
        lease.release()
    assert BufferPool(Store(), 1).acquire(4 * MIB).size == 4 * MIB
    with pytest.raises(RuntimeError, match="capacity"):
        pool.acquire((1 << 64) - 1)
    pool.close()


def test_what_nobody_uses_makes_room_for_other_sizes() -> None:
    store = Store(MIB)
    pool = BufferPool(store, MIB)
    for size in (MIB, 1000, 100_000, MIB, 300_000):
        pool.acquire(size).release()
        assert sum(store.registered.values()) <= MIB
    pool.close()


def test_ready_pieces_are_made_as_far_as_they_fit() -> None:
    store = Store(MIB)
    pool = BufferPool(store, MIB, prewarm_size=300_000, prewarm_count=9)
    assert list(store.registered.values()) == [1 << 19] * 2
    lease = pool.acquire(300_000)
    assert lease.ptr in store.registered
    lease.release()
    pool.close()


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_who_waits_gets_what_is_released(timeout: float | None) -> None:
    pool = BufferPool(Store(), max_regions=1, default_timeout=timeout)
    lease = pool.acquire(1)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(pool.acquire(1)))
    waiting.start()
    with pytest.raises(RuntimeError, match="timed out"):
        pool.acquire(1, timeout=0.05)
    lease.release()
    waiting.join(WAIT)
    found[0].release()
    pool.close()


def test_a_pool_that_does_not_wait_says_so() -> None:
    pool = BufferPool(Store(), max_regions=1, block_on_exhaustion=False)
    lease = pool.acquire(1)
    with pytest.raises(RuntimeError, match="exhausted"):
        pool.acquire(1)
    with pytest.raises(RuntimeError, match="active leases"):
        pool.close()
    lease.release()
    pool.close()


def test_memory_stays_as_long_as_somebody_has_a_view() -> None:
    store = Store()
    pool = BufferPool(store, 4096, min_size_class=4096)
    lease = pool.acquire(4)
    view = lease.buffer[1:]
    view[:] = b"est"
    with pytest.raises(RuntimeError, match="exported views"):
        lease.release()
    at = lease.ptr
    del lease  # the pool has it back, and nobody else gets that memory
    gc.collect()
    other = pool.acquire(4)
    assert other.ptr != at
    other.buffer[:] = b"next"
    assert bytes(view) == b"est"
    assert at not in store.registered
    other.release()
    pool.close()


def test_a_lease_ends_with_the_object() -> None:
    pool = BufferPool(Store())
    lease = pool.acquire(1)
    del lease
    gc.collect()
    pool.close()


@pytest.mark.parametrize(
    ("store", "options", "why"),
    [
        (None, {}, "is not initialized"),
        (Store(health=1), {}, "is not initialized"),
        (Store(0), {}, "configured with a local buffer"),
        (Store(), {"alignment": 12345}, "alignment must be a power of two"),
        (Store(), {"alignment": 4}, "alignment must be a power of two"),
        (Store(), {"min_size_class": 0}, "must be positive"),
    ],
)
def test_what_makes_no_pool_is_told(store: Store | None, options: dict[str, int], why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        BufferPool(store, **options)  # type: ignore[arg-type]


def test_a_negative_time_and_memory_that_is_not_registered_are_told() -> None:
    store = Store()
    pool = BufferPool(store)
    with pytest.raises(RuntimeError, match="non-negative"):
        pool.acquire(1, timeout=-1)
    store.refuses = -600
    with pytest.raises(RuntimeError, match="registration failed"):
        pool.acquire(1)


def test_the_allocator_of_the_host() -> None:
    allocator = MooncakeHostMemAllocator()
    pointer = allocator.alloc(100_000)
    ctypes.memset(pointer, 7, 100_000)
    assert ctypes.string_at(pointer + 99_999, 1) == b"\7"
    assert (allocator.free(pointer), allocator.free(pointer), allocator.alloc(0)) == (0, -1, 0)
    assert buffer_pool.POINTER_BYTES == 8
