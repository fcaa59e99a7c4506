"""Upstream's ``BufferPool`` over the compatible class: registered memory that is lent, and used again.

What it raises is upstream's ``RuntimeError``, in upstream's words, as programs written for it expect.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from engine.memory.copying import address_of

if TYPE_CHECKING:
    from typing_extensions import Self

MIN_SIZE_CLASS = 64 << 10
"""Bytes of the smallest piece that is kept for another use."""

ALIGNMENT = 8 << 20
"""Upstream's default. Pieces begin at a page: memory need not lie better to be sent over a socket, or be registered."""

POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)

LOOK_SECONDS = 1.0
"""Between two looks of who waits for memory without a limit of his own."""


class _Piece:
    """Memory of the pool; whoever has a view of it keeps it mapped."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(-1, size)
        self.pointer = address_of(memoryview(self.memory))


class _Export:
    """As long as this is there, so is a view of a lease."""

    __slots__ = ("__weakref__", "piece")

    def __init__(self, piece: _Piece) -> None:
        self.piece = piece


class BufferLease:
    """A piece of memory until ``release``, or until nobody has it any more."""

    def __init__(self, pool: BufferPool, piece: _Piece, size: int) -> None:
        self._pool = pool
        self._piece: _Piece | None = piece
        self._size = size
        self._exports: weakref.WeakSet[_Export] = weakref.WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.release()

    def __del__(self) -> None:
        if self._piece is not None:
            self._give_back(self._piece)

    @property
    def ptr(self) -> int:
        """Where it begins."""
        return self._held().pointer

    @property
    def size(self) -> int:
        """As many bytes as were asked for."""
        return self._size

    @property
    def buffer(self) -> memoryview:
        """The memory. While this is held the lease cannot be released."""
        piece = self._held()
        export = _Export(piece)
        raw = (ctypes.c_ubyte * self._size).from_address(piece.pointer)
        raw.export = export  # type: ignore[attr-defined]
        self._exports.add(export)
        return memoryview(raw).cast("B") if self._size else memoryview(b"")

    def release(self) -> None:
        """Give it back. Twice is harmless. Raises ``RuntimeError`` while somebody holds a view."""
        if self._piece is None:
            return
        if len(self._exports):
            raise RuntimeError("cannot release buffer while exported views exist")
        self._give_back(self._piece)

    def _held(self) -> _Piece:
        if self._piece is None:
            raise RuntimeError("buffer lease is closed")
        return self._piece

    def _give_back(self, piece: _Piece) -> None:
        self._piece = None
        self._pool.take_back(piece, again=not len(self._exports))


class BufferPool:
    """Memory for calls that take addresses, registered with a store. Thread-safe."""

    def __init__(
        self,
        store: Any,
        max_bytes: int = 0,
        min_size_class: int = MIN_SIZE_CLASS,
        max_size_class: int | None = None,
        alignment: int = ALIGNMENT,
        block_on_exhaustion: bool = True,  # noqa: FBT001 - upstream's
        default_timeout: float | None = None,
        max_regions: int | None = None,
        prewarm_size: int | None = None,
        prewarm_count: int = 0,
    ) -> None:
        """At most ``max_bytes``, and at least the store's local buffer; 0 is twice that. Raises ``RuntimeError``."""
        room = getattr(store, "local_buffer_size", 0) if store is not None else 0
        if store is None or store.health_check() == 1:
            raise RuntimeError("MooncakeDistributedStore is not initialized")
        if min_size_class <= 0 or alignment <= 0:
            raise RuntimeError("min_size_class and alignment must be positive")
        if alignment < POINTER_BYTES or alignment & (alignment - 1):
            raise RuntimeError("alignment must be a power of two and at least sizeof(void*)")
        if not room:
            raise RuntimeError("BufferPool requires a store configured with a local buffer")
        self._store = store
        self._most = 2 * room if not max_bytes else max(max_bytes, room)
        self._smallest = min_size_class
        self._largest = self._most if max_size_class is None else max_size_class
        self._blocks = block_on_exhaustion
        self._timeout = default_timeout
        self._most_leases = max_regions
        self._changed = threading.Condition()
        self._free: list[_Piece] = []
        self._lent: dict[int, _Piece] = {}
        self._closed = False
        if prewarm_size is not None and prewarm_count > 0:
            self.prewarm(prewarm_size, prewarm_count)

    def acquire(self, size: int, block: bool | None = None, timeout: float | None = None) -> BufferLease:  # noqa: FBT001 - upstream's
        """Memory of ``size`` bytes. Raises ``RuntimeError`` where there is none, or not in ``timeout`` seconds."""
        timeout = self._timeout if timeout is None else timeout
        if timeout is not None and timeout < 0:
            raise RuntimeError("timeout must be non-negative")
        until = None if timeout is None else time.monotonic() + timeout
        if max(1, size) > self._most:
            raise RuntimeError("requested buffer size exceeds pool capacity")
        with self._changed:
            while True:
                if self._closed:
                    raise RuntimeError("buffer pool is closed")
                piece = self._piece(max(1, size))
                if piece is not None:
                    self._lent[piece.pointer] = piece
                    return BufferLease(self, piece, size)
                if not (self._blocks if block is None else block):
                    raise RuntimeError("buffer pool is exhausted")
                left = LOOK_SECONDS if until is None else until - time.monotonic()
                if left <= 0:
                    raise RuntimeError("timed out waiting for buffer")
                self._changed.wait(min(left, LOOK_SECONDS))

    buffer = acquire

    def prewarm(self, size: int, count: int) -> None:
        """Have pieces of a size ready, as far as they fit."""
        with self._changed:
            for _ in range(count):
                length = self._class(max(1, size))
                if self._bytes() + length > self._most:
                    return
                self._free.append(self._made(length))

    def close(self) -> None:
        """Let go of all memory. Twice is harmless. Raises ``RuntimeError`` while some of it is lent."""
        with self._changed:
            if self._closed:
                return
            if self._lent:
                raise RuntimeError("cannot close buffer pool with active leases")
            self._closed = True
            self._drop_free(0)
            self._changed.notify_all()

    def take_back(self, piece: _Piece, *, again: bool) -> None:
        """A lease is over. Whether it may be used ``again``: not while somebody has a view."""
        with self._changed:
            if self._lent.pop(piece.pointer, None) is None:
                return
            if again and not self._closed and self._smallest <= piece.size <= self._largest:
                self._free.append(piece)
            else:
                self._store.unregister_buffer(piece.pointer)
            self._changed.notify_all()

    # Inside, with the lock held

    def _piece(self, size: int) -> _Piece | None:
        if self._most_leases is not None and len(self._lent) >= self._most_leases:
            return None
        length = self._class(size)
        for place, piece in enumerate(self._free):
            if piece.size == length:
                return self._free.pop(place)
        if sum(piece.size for piece in self._lent.values()) + length > self._most:
            length = size  # what is rounded up must not be what does not fit
        if sum(piece.size for piece in self._lent.values()) + length > self._most:
            return None
        self._drop_free(self._most - length)
        return self._made(length)

    def _class(self, size: int) -> int:
        """Bytes of a piece for so many: a power of two, so that another may use it, unless it is very large."""
        rounded = max(self._smallest, 1 << (size - 1).bit_length())
        return rounded if rounded <= min(self._largest, self._most) else size

    def _made(self, length: int) -> _Piece:
        piece = _Piece(length)
        if self._store.register_buffer(piece.pointer, length):
            raise RuntimeError("buffer registration failed")
        return piece

    def _drop_free(self, most: int) -> None:
        """Let go of what nobody uses until all together are so many bytes."""
        while self._free and self._bytes() > most:
            self._store.unregister_buffer(self._free.pop(0).pointer)

    def _bytes(self) -> int:
        return sum(piece.size for piece in (*self._free, *self._lent.values()))


class MooncakeHostMemAllocator:
    """Memory of the host by address, as programs ask upstream's class for it. Thread-safe."""

    def __init__(self) -> None:
        self._pieces: dict[int, _Piece] = {}

    def alloc(self, size: int) -> int:
        """Where ``size`` new bytes begin; 0 for none."""
        if size <= 0:
            return 0
        piece = _Piece(size)
        self._pieces[piece.pointer] = piece
        return piece.pointer

    def free(self, ptr: int) -> int:
        """Let them go: 0, or -1 where there are none."""
        return 0 if self._pieces.pop(ptr, None) is not None else -1
