"""A region: memory that a transfer may fill, on the host or on a device.

Code that runs in this process sees host memory as a ``memoryview``. A network card is told addresses, and memory of a
GPU has nothing else. So what is passed around is where memory lies; a view of it is had where there is one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.memory.lent import PyBuffer, byte_view, get_buffer, release_buffer

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter

HOST = "host"
"""The device of memory that this process can read and write itself."""


class Region:
    """``length`` bytes at ``address`` of ``device``, which neither move nor go away until ``close``."""

    __slots__ = ("_let_go", "_owner", "address", "device", "length", "readonly")

    def __init__(
        self,
        address: int,
        length: int,
        *,
        owner: object,
        device: str = HOST,
        readonly: bool = False,
        let_go: Callable[[], None] | None = None,
    ) -> None:
        """``owner`` keeps the memory where it is: on the host, a flat ``memoryview`` of its bytes, which is ours.

        ``let_go`` is called once, when the region is closed.
        """
        self.address = address
        self.length = length
        self.device = device
        self.readonly = readonly
        self._owner: object = owner
        self._let_go = let_go

    @classmethod
    def of(cls, data: Exporter) -> Region:
        """The memory of whatever ``lent.byte_view`` takes. Raises ``UsageError`` as that does."""
        view = byte_view(data, "the memory")
        buffer = PyBuffer()  # the view holds the memory, this tells where it is
        get_buffer(view, ctypes.byref(buffer), 0)
        try:
            return cls(buffer.buf or 0, buffer.len, owner=view, readonly=view.readonly)
        finally:
            release_buffer(ctypes.byref(buffer))

    def view(self) -> memoryview | None:
        """The bytes, where they are the host's; None for a device's. It is the region's own: do not release it.

        Raises ``ValueError`` once the region is closed.
        """
        if self._owner is None:
            raise ValueError("the region is closed")
        return self._owner if isinstance(self._owner, memoryview) else None

    def part(self, offset: int, length: int, let_go: Callable[[], None] | None = None) -> Region:
        """A region inside this one, which may outlive it. Raises ``ValueError`` once this one is closed."""
        view = self.view()
        return Region(
            self.address + offset,
            length,
            owner=self._owner if view is None else view[offset : offset + length],
            device=self.device,
            readonly=self.readonly,
            let_go=let_go,
        )

    def close(self) -> None:
        """Let the memory go. Twice is harmless."""
        owner, self._owner = self._owner, None
        let_go, self._let_go = self._let_go, None
        if isinstance(owner, memoryview):
            owner.release()
        if let_go is not None:
            let_go()

    def __del__(self) -> None:
        self.close()
