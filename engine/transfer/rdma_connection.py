"""What a lane of a ``TransferEngine`` moves slices with over RDMA: READs and WRITEs of registered memory.

Keys come from the peer's descriptor. Local memory that the engine has registered is used as it is; other memory is
registered for the slice, and a file's bytes pass through a buffer.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from engine.errors import MooncakeError, PeerStalled, PeerUnreachable, RangeRefused
from engine.memory.region import Region
from engine.protocol.wire import Opcode as WireOpcode
from engine.transfer.batch import Slice
from engine.transports.rdma.addresses import RdmaAddress, gid_from_wire
from engine.transports.rdma.pinned import Pinned
from engine.transports.rdma.reader.link import Link, Piece
from engine.transports.rdma.reader.session import Session
from engine.transports.rdma.verbs.interface import Access, LinkLayer, WorkOpcode

if TYPE_CHECKING:
    from engine.protocol.segment import SegmentDescriptor
    from engine.transfer.endpoint import Endpoint
    from engine.transports.rdma.owner.whole_buffers import WholeBuffers

Keys = Callable[[int, int, bool], "Mapping[str, int] | None"]
"""The peer's keys for ``length`` bytes at ``address`` by device, None where it does not offer them.

The third argument asks not to trust what is cached.
"""

ONE_AT_A_TIME = "the peer takes one connection at a time"


class Carrier:
    """One link to a segment, used by one lane at a time. Only ``abort`` may come from another thread."""

    def __init__(
        self, endpoint: Endpoint, link: Link, offers: WholeBuffers, keys: Keys, *, stall_timeout: float
    ) -> None:
        """Owns ``link``; ``keys`` are those of the peer's memory."""
        self.endpoint = endpoint
        self.aborted = False
        self._link = link
        self._offers = offers
        self._stall_timeout = stall_timeout
        self._keys = keys

    def abort(self) -> None:
        """Break off whatever it is doing; its user gets an ``OSError``."""
        self.aborted = True
        self._link.close()

    def close(self) -> None:
        """Close it. Twice is harmless."""
        self._link.close()

    def carry(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        """Move slices of one opcode; ``moved`` is told of each, which leaves ``run``.

        Raises ``OSError`` where another link may help, and for the first slice left in ``run``: ``RangeRefused``,
        ``TransportUnavailable``, ``StorageError`` or ``SourceChanged``. It must then be closed.
        """
        moves: list[_Move] = []
        try:
            for piece in list(run):
                try:
                    moves.append(self._move(piece))
                except MooncakeError:
                    _to_front(run, piece)
                    raise
            self._link.post([move.piece for move in moves])
            while run:
                self._wait(run, moved)
        except (PeerUnreachable, PeerStalled) as error:
            raise ConnectionAbortedError(errno.ECONNABORTED, str(error)) from None
        finally:
            if run:
                self._link.close()  # before the memory of what did not end is let go
            for move in moves:
                move.release()

    def _wait(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        found = self._link.wait(self._stall_timeout)
        if not found:
            raise TimeoutError(errno.ETIMEDOUT, f"nothing completed in {self._stall_timeout:g} s")
        for done in found:
            move: _Move = done.piece.tag
            if done.why is not None:
                self._refused(run, move.slice, done.piece)
            move.finish()
            move.release()  # before anybody hears that it is over
            run.remove(move.slice)
            moved(move.slice)

    def _refused(self, run: deque[Slice], piece: Slice, posted: Piece) -> NoReturn:
        """The device refused: the memory may have been registered anew, with other keys."""
        _to_front(run, piece)
        found = self._keys(piece.address, piece.length, True)
        if found is not None and found != posted.rkeys:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the peer's keys have changed")
        raise RangeRefused(peer=self.endpoint.segment, address=piece.address, length=piece.length)

    def _move(self, piece: Slice) -> _Move:
        rkeys = self._rkeys(piece)
        move = _Move(piece, self._offers.find(piece.transfer.buffer))
        try:
            move.prepare(self._link)
        except BaseException:
            move.release()
            raise
        move.piece = Piece(move.opcode, move.address, move.lkeys, piece.length, piece.address, rkeys, move)
        return move

    def _rkeys(self, piece: Slice) -> Mapping[str, int]:
        found = self._keys(piece.address, piece.length, False)
        if found is None:
            raise RangeRefused(peer=self.endpoint.segment, address=piece.address, length=piece.length)
        return found


class _Move:
    """A slice with the memory that it is moved from or to."""

    def __init__(self, piece: Slice, known: Pinned | None) -> None:
        self.slice = piece
        self.reads = piece.transfer.opcode is WireOpcode.READ
        self.opcode = WorkOpcode.READ if self.reads else WorkOpcode.WRITE
        self.piece: Piece
        self.address = 0
        self.lkeys: dict[str, int] = {}
        self._known = known
        self._own: Pinned | None = None
        self._bounce: memoryview | None = None

    def prepare(self, link: Link) -> None:
        """Find or register the memory."""
        piece, known = self.slice, self._known
        buffer = piece.transfer.buffer
        if known is not None and not (self.reads and known.memory.readonly):
            # A device takes both keys of a region for the address that it was registered under.
            self.address, self.lkeys = known.remote + piece.offset, known.lkeys()
            return
        view = buffer.view(piece.offset, piece.length)
        if view is None:
            view = self._bounce = memoryview(mmap.mmap(-1, piece.length))
            if not self.reads:
                buffer.read_into(piece.offset, view)
        region = Region.of(view)
        if view is not self._bounce:
            view.release()  # the caller's memory is held by what is pinned alone
        self._own = Pinned(region, Access.LOCAL_WRITE if self.reads else Access(0))
        self._own.register(link.nics)
        self.address, self.lkeys = self._own.address, self._own.lkeys()

    def finish(self) -> None:
        """The bytes are there: store them where they passed through a buffer."""
        if self._bounce is not None and self.reads:
            self.slice.transfer.buffer.write_from(self.slice.offset, self._bounce)

    def release(self) -> None:
        """Let go of what was registered for this slice."""
        own, self._own = self._own, None
        if own is not None:
            own.close()


class Carriers:
    """Makes carriers, for one engine. Thread-safe."""

    def __init__(self, offers: WholeBuffers, name: Callable[[], str]) -> None:
        """``name`` is our segment's: peers of upstream's look it up to find our devices."""
        self._offers = offers
        self._name = name
        self._lock = threading.Lock()
        self._guests: dict[str, threading.Lock] = {}

    def connect(self, endpoint: Endpoint, keys: Keys, *, connect_timeout: float, stall_timeout: float) -> Carrier:
        """A new link to a segment, whose keys ``keys`` tells.

        Raises ``OSError`` where another attempt may help, ``TransportUnavailable``, and as ``Link``.
        """
        descriptor = endpoint.rdma
        assert descriptor is not None  # noqa: S101 - the caller has looked
        with self._lock:
            turn = self._guests.get(descriptor.name)
        if turn is not None:
            return self._next_guest(endpoint, keys, turn, connect_timeout, stall_timeout)
        link = self._link(endpoint, connect_timeout, stall_timeout)
        if link.session.kept:
            return Carrier(endpoint, link, self._offers, keys, stall_timeout=stall_timeout)
        # Upstream's peers have one connection for each network card of ours: a second one would break the first.
        with self._lock:
            turn = self._guests.setdefault(descriptor.name, threading.Lock())
        if turn.acquire(blocking=False):
            return _GuestCarrier(endpoint, link, self._offers, keys, stall_timeout=stall_timeout, turn=turn)
        link.close()
        raise BlockingIOError(errno.EAGAIN, ONE_AT_A_TIME)

    def _next_guest(
        self, endpoint: Endpoint, keys: Keys, turn: threading.Lock, connect_timeout: float, stall_timeout: float
    ) -> Carrier:
        if not turn.acquire(blocking=False):
            raise BlockingIOError(errno.EAGAIN, ONE_AT_A_TIME)
        try:
            link = self._link(endpoint, connect_timeout, stall_timeout)
        except BaseException:
            turn.release()
            raise
        return _GuestCarrier(endpoint, link, self._offers, keys, stall_timeout=stall_timeout, turn=turn)

    def _link(self, endpoint: Endpoint, connect_timeout: float, stall_timeout: float) -> Link:
        descriptor = endpoint.rdma
        assert descriptor is not None  # noqa: S101 - the caller has looked
        session = Session(
            endpoint.host,
            endpoint.rpc_port,
            descriptor.name,
            connect_timeout=connect_timeout,
            answer_timeout=stall_timeout,
        )
        nics = self._offers.nics
        return Link(nics, addresses_of(descriptor), session, name=self._name(), preferred=preferred_of(descriptor))


class _GuestCarrier(Carrier):
    """The only link to a peer of upstream's."""

    def __init__(
        self,
        endpoint: Endpoint,
        link: Link,
        offers: WholeBuffers,
        keys: Keys,
        *,
        stall_timeout: float,
        turn: threading.Lock,
    ) -> None:
        super().__init__(endpoint, link, offers, keys, stall_timeout=stall_timeout)
        self._turn: threading.Lock | None = turn

    def close(self) -> None:
        """See ``Carrier.close``."""
        super().close()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()


def addresses_of(descriptor: SegmentDescriptor) -> tuple[RdmaAddress, ...]:
    """A segment's devices as others reach them. Upstream does not tell the kind of link: a LID is InfiniBand's."""
    found = []
    for device in descriptor.devices:
        gid = gid_from_wire(device.gid)
        if gid is not None:
            kind = LinkLayer.INFINIBAND if device.lid else LinkLayer.ETHERNET
            found.append(RdmaAddress(device.name, kind, device.lid, gid))
    return tuple(found)


def preferred_of(descriptor: SegmentDescriptor) -> frozenset[str]:
    """The devices that a segment's matrix prefers for host memory."""
    found: set[str] = set()
    for place, lists in descriptor.matrix.items():
        if place.startswith("cpu") and isinstance(lists, list) and lists and isinstance(lists[0], list):
            found |= {name for name in lists[0] if isinstance(name, str)}
    return frozenset(found)


def _to_front(run: deque[Slice], piece: Slice) -> None:
    """The first slice that is left is the one that an error is about."""
    with contextlib.suppress(ValueError):
        run.remove(piece)
    run.appendleft(piece)
