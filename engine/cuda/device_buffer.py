"""Memory of GPUs that peers may read, alone or among memory of the host: one range of addresses, as ``JoinedBuffer``.

A peer that is sent some of it gets it out of pinned memory, a piece while the next one is copied. It is no memory of
this process: no network card reads it by itself, and there is no file to hand over.
"""

from __future__ import annotations

import itertools
import socket
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from engine.cuda.copies import Copies
from engine.cuda.device_memory import DeviceMemory
from engine.cuda.driver import lasting
from engine.errors import GpuFailed
from engine.memory.buffers import Buffer


class DeviceBuffer(Buffer):
    """The concatenation of memory of GPUs and of the host, read-only to peers; kept alive until it is closed."""

    def __init__(
        self,
        name: str,
        views: Sequence[memoryview | DeviceMemory],
        *,
        on_lost: Callable[[str, str], None] | None = None,
    ) -> None:
        """``views`` are the buffer's own, at least one of them of a GPU; empty ones may be among them.

        ``on_lost(name, detail)`` is called, from the thread that noticed, where memory cannot be read any more.
        """
        self.name = name
        self._on_lost = on_lost
        self._views = tuple(views)
        self._starts = list(itertools.accumulate((len(view) for view in self._views), initial=0))
        self.length = self._starts.pop()
        self._copies = Copies(next(view.cuda for view in self._views if isinstance(view, DeviceMemory)))

    def send(self, sock: socket.socket, offset: int, length: int) -> int:
        """See ``Buffer.send``. Raises ``GpuFailed``, too, where nothing was sent."""
        sent = 0
        with closing(self._pieces(offset, length)) as pieces:
            for piece in pieces:
                try:
                    count = sock.send(piece)
                except BlockingIOError:
                    if not sent:
                        raise
                    break
                sent += count
                if count < len(piece):
                    break
        return sent

    def read_into(self, offset: int, view: memoryview) -> None:
        """See ``Buffer.read_into``. Raises ``GpuFailed``, too."""
        done = 0
        with closing(self._pieces(offset, len(view))) as pieces:
            for piece in pieces:
                view[done : done + len(piece)] = piece
                done += len(piece)

    def _pieces(self, offset: int, length: int) -> Generator[memoryview, None, None]:
        """The range, as far as it lies together, in memory of the host; each until the next is asked for."""
        index = bisect_right(self._starts, offset) - 1
        while length:
            view = self._views[index]
            within = offset - self._starts[index]
            count = min(length, len(view) - within)
            if isinstance(view, DeviceMemory):
                try:
                    yield from self._copies.pieces(view, within, count)
                except GpuFailed as error:
                    if self._on_lost is not None and lasting(error):
                        self._on_lost(self.name, str(error))
                    raise
            elif count:
                yield view[within : within + count]
            offset += count
            length -= count
            index += 1

    def close(self) -> None:
        """See ``Buffer.close``."""
        self._copies.close()
        for view in self._views:
            view.release()
