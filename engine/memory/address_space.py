"""The address space: which buffer a peer means when it names an address.

Addresses are synthetic. Each registered buffer gets a range at a random page of a 47-bit space, so that files can be
served like memory, and no address tells where anything lies in this process. Programs for upstream's engine tell one
another pointers; for those a buffer is registered at the address that it has.
"""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING

from engine.errors import AddressError, UsageError
from engine.memory.buffers import Buffer
from engine.protocol.segment import BufferDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

PAGE = 4096
"""Addresses are multiples of this, and an unused page at least lies between two buffers."""

LARGE_PAGE = 1 << 21
"""The page size of large mappings."""

SPACE = 1 << 47
"""Addresses are below this: what a user-space pointer of x86-64 can hold."""

_FIRST_PAGE = 16
_ATTEMPTS = 1000


class _Held:
    """A buffer at its address. ``users`` are leases; a retired one is closed by the last of them."""

    __slots__ = ("base", "buffer", "closed", "retired", "users")

    def __init__(self, base: int, buffer: Buffer) -> None:
        self.base = base
        self.buffer = buffer
        self.users = 0
        self.retired = False
        self.closed = False


class Lease:
    """The right to use ``length`` bytes at ``offset`` of ``buffer``; the buffer stays open until it is released."""

    __slots__ = ("_held", "_space", "buffer", "length", "offset")

    def __init__(self, space: AddressSpace, held: _Held, offset: int, length: int) -> None:
        self._space = space
        self._held: _Held | None = held
        self.buffer = held.buffer
        self.offset = offset
        self.length = length

    def release(self) -> None:
        """Give it back; twice is harmless."""
        held, self._held = self._held, None
        if held is not None:
            self._space._release(held)  # noqa: SLF001 - the lease is the address space's other half

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class AddressSpace:
    """Registered buffers by address. Thread-safe; it owns the buffers, and closes them after their last use."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._bases: list[int] = []
        self._held: list[_Held] = []

    def register(self, buffer: Buffer, *, like: int = 0, at: int | None = None) -> int:
        """Give ``buffer`` an address: ``at``, or one that agrees with ``like`` within ``LARGE_PAGE``.

        A device that maps addresses to memory does it by pages, and the larger they are the fewer it has to look up.
        Raises ``UsageError`` for an empty buffer, a full space, or where something is registered ``at`` that address.
        """
        if buffer.length < 1:
            raise UsageError(detail=f"buffer {buffer.name!r} is empty and cannot be registered")
        with self._changed:
            base = self._place(buffer.length, like % LARGE_PAGE) if at is None else self._free(at, buffer.length)
            index = bisect_right(self._bases, base)
            self._bases.insert(index, base)
            self._held.insert(index, _Held(base, buffer))
        return base

    def replace(self, address: int, buffer: Buffer) -> None:
        """Serve ``buffer``, of the same length, at ``address`` from now on; leases keep the old one.

        Raises ``AddressError`` where nothing is registered, ``UsageError`` where the lengths differ.
        """
        with self._changed:
            index = self._index(address, buffer.length)
            old = self._held[index]
            if old.buffer.length != buffer.length:
                detail = f"a buffer of {old.buffer.length} bytes cannot be replaced by one of {buffer.length}"
                raise UsageError(detail=detail)
            self._held[index] = _Held(address, buffer)
            unused = self._retire(old)
        if unused:
            old.buffer.close()

    def unregister(self, address: int, *, timeout: float = 0.0, withdraw: Callable[[], None] = lambda: None) -> bool:
        """Serve the buffer at ``address`` no more, and wait ``timeout`` seconds for those who are using it.

        ``withdraw`` is called once nobody can begin to use it, and before it may be closed. Returns whether nobody uses
        it any more; else the last user closes it. Raises ``AddressError`` where nothing is registered.
        """
        with self._changed:
            index = self._index(address, 0)
            old = self._held.pop(index)
            del self._bases[index]
            old.users += 1  # ours, until it is withdrawn
            self._retire(old)
        try:
            withdraw()
        finally:
            self._release(old)
        with self._changed:
            return self._changed.wait_for(lambda: old.closed, timeout)

    def forget(self, address: int) -> None:
        """Take ``register`` back: nobody has the buffer's address, and the caller closes it."""
        with self._changed:
            index = self._index(address, 0)
            del self._held[index], self._bases[index]

    def resolve(self, address: int, length: int) -> Lease:
        """A lease on the range. Raises ``AddressError`` if it is not inside one buffer, or not servable now."""
        with self._changed:
            index = bisect_right(self._bases, address) - 1
            held = self._held[index] if index >= 0 else None
            if held is None or length < 1 or address + length > held.base + held.buffer.length:
                raise AddressError(address=address, length=length)
            held.users += 1
        lease = Lease(self, held, address - held.base, length)
        ready = False
        try:
            ready = held.buffer.ready(lease.offset, length)
        finally:
            if not ready:
                lease.release()
        if not ready:
            raise AddressError(address=address, length=length)
        return lease

    def descriptors(self) -> tuple[BufferDescriptor, ...]:
        """What is registered, by address."""
        with self._changed:
            return tuple(BufferDescriptor(held.buffer.name, held.base, held.buffer.length) for held in self._held)

    def close(self) -> None:
        """Unregister everything; buffers in use are closed by their last users."""
        with self._changed:
            unused = [held for held in self._held if self._retire(held)]
            self._held.clear()
            self._bases.clear()
        for held in unused:
            held.buffer.close()

    def _index(self, address: int, length: int) -> int:
        index = bisect_right(self._bases, address) - 1
        if index < 0 or self._bases[index] != address:
            raise AddressError(address=address, length=length)
        return index

    def _free(self, at: int, length: int) -> int:
        """An address that the caller has chosen, where nothing lies."""
        index = bisect_right(self._bases, at)
        before = self._held[index - 1] if index else None
        if not 0 < at <= at + length <= 1 << 64:
            raise UsageError(detail=f"{length} bytes at address {at:#x} do not exist")
        if (before is not None and at < before.base + before.buffer.length) or (
            index < len(self._bases) and self._bases[index] < at + length
        ):
            raise UsageError(detail=f"something is registered already within the {length} bytes at {at:#x}")
        return at

    def _place(self, length: int, skew: int) -> int:
        size = -(-(length + skew) // PAGE) * PAGE + PAGE
        step = LARGE_PAGE if skew else PAGE
        room = (SPACE - size) // step - _FIRST_PAGE
        for _ in range(_ATTEMPTS if room > 0 else 0):
            start = (_FIRST_PAGE + secrets.randbelow(room)) * step
            index = bisect_right(self._bases, start + skew)
            after_last = index == 0 or self._end(self._held[index - 1]) < start
            if after_last and (index == len(self._bases) or start + size <= self._bases[index]):
                return start + skew
        raise UsageError(detail=f"no room for {length} bytes is left in the address space")

    @staticmethod
    def _end(held: _Held) -> int:
        return -(-(held.base + held.buffer.length) // PAGE) * PAGE

    @staticmethod
    def _retire(held: _Held) -> bool:
        held.retired = True
        return not held.users

    def _release(self, held: _Held) -> None:
        with self._changed:
            held.users -= 1
            last = held.retired and not held.users
        if last:
            held.buffer.close()
            with self._changed:
                held.closed = True
                self._changed.notify_all()
