"""Several pieces of memory as one buffer: an object of many in-memory files is one range of addresses.

The other way round, one range of a peer's is brought into several pieces of ours by one request.
"""

from __future__ import annotations

import itertools
import socket
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from engine.memory.buffers import Buffer

_MAX_PIECES = 64


class JoinedBuffer(Buffer):
    """The concatenation of byte views, read-only to peers; it keeps them alive until it is closed."""

    def __init__(self, name: str, views: Sequence[memoryview], *, fillable: bool = False) -> None:
        """``views`` are flat views of bytes; empty ones may be among them. ``fillable`` ones may be read into here."""
        self.name = name
        self._fillable = fillable
        self._views = tuple(views)
        self._starts = list(itertools.accumulate((len(v) for v in self._views), initial=0))
        self.length = self._starts.pop()

    def send(self, sock: socket.socket, offset: int, length: int) -> int:
        """See ``Buffer.send``."""
        return sock.sendmsg(list(itertools.islice(self._pieces(offset, length), _MAX_PIECES)))

    def read_into(self, offset: int, view: memoryview) -> None:
        """See ``Buffer.read_into``."""
        done = 0
        for piece in self._pieces(offset, len(view)):
            view[done : done + len(piece)] = piece
            done += len(piece)

    def rooms(self, offset: int, length: int) -> list[memoryview] | None:
        """See ``Buffer.rooms``."""
        return list(self._pieces(offset, length)) if self._fillable else None

    def memory_run(self, offset: int, length: int) -> memoryview | None:
        """See ``Buffer.memory_run``."""
        return next(self._pieces(offset, length))

    def _pieces(self, offset: int, length: int) -> Iterator[memoryview]:
        """The range, view by view."""
        index = bisect_right(self._starts, offset) - 1
        while length:
            within = offset - self._starts[index]
            piece = self._views[index][within : within + length]
            if len(piece):
                yield piece
                offset += len(piece)
                length -= len(piece)
            index += 1

    def close(self) -> None:
        """See ``Buffer.close``."""
        for view in self._views:
            view.release()
