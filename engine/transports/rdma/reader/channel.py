"""Reads from one peer, in order, into a sink.

A request goes through three stages: it is granted (the owner registers the range, and tells the keys), posted in pieces
as buffers are free, and handed to the sink in order, while later pieces are on their way. A file's bytes arrive in a
ring of pinned buffers, from which the sink hashes and writes them; memory is read in place.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import PeerStalled, PeerUnreachable, RangeRefused, UsageError
from engine.forks import Origin
from engine.memory.region import HOST, Region
from engine.transports.base import Channel, Sink, pour
from engine.transports.rdma.pinned import Pinned
from engine.transports.rdma.reader.link import Done, Link, Piece
from engine.transports.rdma.verbs.interface import Access, WorkOpcode

if TYPE_CHECKING:
    from engine.transports.rdma.nics import RdmaNic

SLOT = 1 << 20
"""Bytes of one piece, and of one buffer of a ring."""

SLOTS = 16
"""Buffers of a ring: so many pieces are under way or wait for the sink."""

GRANT = 16 << 20
"""Bytes asked of the owner at a time: it registers them before it answers."""

MAX_IN_FLIGHT = 1024
"""Requests submitted and not received."""


class Ring:
    """``SLOTS`` buffers of ``SLOT`` bytes, registered on the devices that have used it."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, SLOTS * SLOT)
        self.view = memoryview(memory)
        self._pinned = Pinned(Region.of(memory), Access.LOCAL_WRITE)
        self.free = list(range(SLOTS))

    def prepare(self, nics: list[RdmaNic]) -> None:
        """Make it usable with these devices. Raises ``LockedMemoryLimit`` or ``VerbsFailed``."""
        self._pinned.register(nics)
        self.lkeys = self._pinned.lkeys()

    def address(self, slot: int) -> int:
        """Where a buffer begins."""
        return self._pinned.address + slot * SLOT

    def data(self, slot: int, length: int) -> memoryview:
        """What a buffer holds."""
        return self.view[slot * SLOT : slot * SLOT + length]

    def close(self) -> None:
        """Deregister it. No device may be using it. Twice is harmless."""
        self._pinned.close()
        self.view.release()


class _Part:
    """A piece of a request, in order. ``slot`` is its buffer of the ring, -1 where it is read in place."""

    __slots__ = ("done", "length", "remote", "request", "rkeys", "slot")

    def __init__(self, request: _Request, length: int, remote: int, rkeys: dict[str, int]) -> None:
        self.request = request
        self.length = length
        self.remote = remote
        self.rkeys = rkeys
        self.slot = -1
        self.done = False


class _Request:
    """One submitted range."""

    __slots__ = ("address", "asked", "grants", "length", "parts", "pinned", "placed")

    def __init__(self, address: int, length: int) -> None:
        self.address = address
        self.length = length
        self.asked = 0  # bytes for which a grant was asked
        self.placed = 0  # bytes whose place in memory has been given to a piece
        self.grants: list[int] = []
        self.parts: deque[_Part] = deque()
        self.pinned: Pinned | None = None


class RdmaChannel(Channel):
    """See ``Channel``; raises ``TransportUnavailable`` too, where no device moves the bytes any more."""

    in_place = True

    def __init__(self, link: Link, ring: Ring, *, stall_timeout: float, give_back: Callable[[Ring], None]) -> None:
        """Owns ``link``; ``give_back(ring)`` is called once no device uses ``ring`` any more."""
        self._origin = Origin("this channel")
        self._link = link
        self._ring = ring
        self._nics = link.nics
        self._stall_timeout = stall_timeout
        self._give_back = give_back
        self._requests: deque[_Request] = deque()
        self._ungranted: deque[_Request] = deque()
        self._ready: deque[_Part] = deque()
        self._lock = threading.Lock()
        self._using = False
        self._closed = False
        self._returned = False

    def submit(self, address: int, length: int, place: Region | None = None) -> None:
        """See ``Channel.submit``. Raises ``UsageError`` for no bytes, ``RangeRefused``, ``TransportUnavailable``."""
        try:
            self._origin.check()
            if length < 1 or len(self._requests) >= MAX_IN_FLIGHT or (place is not None and place.length != length):
                raise UsageError(detail=f"request {len(self._requests) + 1} of {length} bytes on one channel")
            with self._in_use():
                request = _Request(address, length)
                if place is not None and place.device == HOST and not place.readonly:
                    request.pinned, place = Pinned(place, Access.LOCAL_WRITE), None
                self._requests.append(request)
                self._ungranted.append(request)
                if request.pinned is not None:
                    request.pinned.register(self._nics)
                self._advance()
        finally:
            if place is not None:  # it was not taken
                place.close()

    def receive(self, sink: Sink) -> None:
        """See ``Channel.receive``."""
        self._origin.check()
        if not self._requests and not self._closed:  # in this order: closing takes the requests away
            raise UsageError(detail="nothing was submitted on this channel")
        with self._in_use():
            request = self._requests[0]
            left = request.length
            while left:
                part = self._next(request)
                self._deliver(sink, part)
                request.parts.popleft()
                left -= part.length
                self._advance()
            self._over(request)
            self._requests.popleft()

    def close(self) -> None:
        """See ``Channel.close``. When it returns, no device writes to memory of ours any more."""
        if self._origin.elsewhere:
            return
        self._link.close()
        with self._lock:
            self._closed = True
            if self._using:
                return  # its user cleans up, who is about to see that the link is closed
        self._clean_up()

    # Inside

    def _in_use(self) -> _Use:
        return _Use(self)

    def _advance(self) -> None:
        """Ask for grants, and post what there are buffers for."""
        while self._ungranted and len(self._ready) < SLOTS:
            request = self._ungranted[0]
            count = min(GRANT, request.length - request.asked)
            number, extents = self._link.session.grant(request.address + request.asked, count)
            request.grants.append(number)
            request.asked += count
            for extent in extents:
                for at in range(0, extent.length, SLOT):
                    size = min(SLOT, extent.length - at)
                    part = _Part(request, size, extent.remote + at, dict(extent.rkeys))
                    request.parts.append(part)
                    self._ready.append(part)
            if request.asked == request.length:
                self._ungranted.popleft()
        pieces: list[Piece] = []
        while self._ready and self._link.busy + len(pieces) < SLOTS:
            piece = self._piece(self._ready[0])
            if piece is None:
                break
            self._ready.popleft()
            pieces.append(piece)
        if pieces:
            self._link.post(pieces)

    def _piece(self, part: _Part) -> Piece | None:
        """Where a part is to be read to; None where no buffer is free."""
        pinned = part.request.pinned
        if pinned is not None:
            local, lkeys = pinned.address + part.request.placed, pinned.lkeys()
            part.request.placed += part.length
        else:
            if not self._ring.free:
                return None
            part.slot = self._ring.free.pop()
            local, lkeys = self._ring.address(part.slot), self._ring.lkeys
        return Piece(WorkOpcode.READ, local, lkeys, part.length, part.remote, part.rkeys, part)

    def _next(self, request: _Request) -> _Part:
        """The next part of a request, once its bytes are there."""
        until = time.monotonic() + self._stall_timeout
        while not request.parts or not request.parts[0].done:
            found = self._link.wait(until - time.monotonic())
            if not found:
                raise PeerStalled(peer=self._link.peer, seconds=self._stall_timeout)
            for done in found:
                self._ended(done)
            self._advance()
            until = time.monotonic() + self._stall_timeout
        return request.parts[0]

    def _ended(self, done: Done) -> None:
        part = done.piece.tag
        if done.why is not None:
            request = part.request
            raise RangeRefused(peer=self._link.peer, address=request.address, length=request.length)
        part.done = True

    def _deliver(self, sink: Sink, part: _Part) -> None:
        if part.slot < 0:
            left = part.length
            while left:  # the bytes lie there already
                count = len(sink.buffer(left))
                sink.filled(count)
                left -= count
            return
        pour(sink, self._ring.data(part.slot, part.length))
        self._ring.free.append(part.slot)
        part.slot = -1

    def _over(self, request: _Request) -> None:
        """A request has been received: give back what was for it alone."""
        if request.pinned is not None:
            request.pinned.close()
        for number in request.grants:
            self._link.session.release(number)

    def _clean_up(self) -> None:
        """Let go of memory; the link is closed."""
        with self._lock:
            first, self._returned = not self._returned, True
        if not first:
            return
        for request in self._requests:
            if request.pinned is not None:
                request.pinned.close()
        self._requests.clear()
        self._ring.free[:] = range(SLOTS)
        self._give_back(self._ring)


class _Use:
    """The time in which a channel's thread is inside it: afterwards it cleans up where the channel is to be closed."""

    def __init__(self, channel: RdmaChannel) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        channel = self._channel
        with channel._lock:  # noqa: SLF001 - a part of the channel
            if channel._closed:  # noqa: SLF001
                raise PeerUnreachable(peer=channel._link.peer, detail="the channel was closed")  # noqa: SLF001
            channel._using = True  # noqa: SLF001

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        channel = self._channel
        if error is not None:
            channel._link.close()  # noqa: SLF001
        with channel._lock:  # noqa: SLF001
            channel._using = False  # noqa: SLF001
            channel._closed = over = channel._closed or error is not None  # noqa: SLF001
        if over:
            channel._clean_up()  # noqa: SLF001
