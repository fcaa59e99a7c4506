"""The queue pairs to one peer: posts pieces over all rails, and says how each ended.

A link belongs to one thread; only ``close`` may come from another, at any time, and when it has returned no device
touches the pieces' memory any more. What a failure means is decided here; which rail is next in ``rails``.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import MooncakeError, PeerUnreachable, RemoteError, TransportUnavailable
from engine.transports.rdma.addresses import RdmaAddress, pair_up, why_apart
from engine.transports.rdma.reader.rails import Rail, pick, to_revive
from engine.transports.rdma.reader.session import Session
from engine.transports.rdma.setup import Setup
from engine.transports.rdma.verbs.interface import (
    Access,
    CompletionQueue,
    Meaning,
    QueuePair,
    QueuePairPath,
    WorkOpcode,
    WorkRequest,
    meaning,
)

if TYPE_CHECKING:
    from engine.transports.rdma.nics import Nics, RdmaNic

DEPTH = 32
"""Work requests under way on one queue pair; the limit of ``MC_MAX_WR`` is above it."""

MAX_READS = 16
"""READs that one queue pair has under way at once, where both devices can; upstream's number, too."""

MAX_ATTEMPTS = 3
"""How often a piece is posted before its rails are given up."""

POLL_SECONDS = 1.0
"""Seconds that one wait lasts at most; then the link is checked for closing."""

POLL_COUNT = 64
"""Completions taken at once."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Piece:
    """One READ or WRITE: ``length`` bytes at ``local`` and ``remote``. Keys are by our and by the peer's devices."""

    opcode: WorkOpcode
    local: int
    lkeys: Mapping[str, int]
    length: int
    remote: int
    rkeys: Mapping[str, int]
    tag: Any = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """How a piece ended: well, or with ``why`` where the peer refused the range itself."""

    piece: Piece
    why: Meaning | None = None


@dataclass(eq=False)
class _Rail(Rail):
    """A rail with its queue pairs."""

    ours: Any = None
    theirs: RdmaAddress | None = None
    pairs: list[QueuePair] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Flight:
    piece: Piece
    rail: _Rail
    pair: int


class Link:
    """Queue pairs between the devices of ``nics`` and those of a peer, set up over ``session``, which it owns."""

    def __init__(
        self, nics: Nics, theirs: Sequence[RdmaAddress], session: Session, *, name: str, preferred: frozenset[str]
    ) -> None:
        """Connects. ``name`` is our segment's, ``preferred`` the peer's devices that its priority matrix prefers.

        Raises ``TransportUnavailable`` where no rail can be had, ``PeerUnreachable`` or ``PeerStalled``.
        """
        self.peer = session.peer
        self.session = session
        self._nics = nics
        self._name = name
        self._lock = threading.Lock()
        self._closed = False
        self._ids = itertools.count(1)
        self._waiting: deque[Piece] = deque()
        self._flights: dict[int, _Flight] = {}
        self._queues: dict[str, CompletionQueue] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._rails = [
            _Rail(
                name=f"{ours.device} to {other.device} of {self.peer}",
                tier=(not nics[ours.device].report.preferred) + (bool(preferred) and other.device not in preferred),
                ours=nics[ours.device],
                theirs=other,
            )
            for ours, other in pair_up(nics.addresses, theirs)
        ]
        try:
            self._open_queues(theirs)
            self._revive()
        except BaseException:
            self.close()
            raise

    @property
    def nics(self) -> list[RdmaNic]:
        """Our devices that it uses: those for which memory must be registered."""
        found = {rail.ours.name: rail.ours for rail in self._rails}
        return list(found.values())

    @property
    def rails(self) -> Sequence[Rail]:
        """Its rails."""
        return self._rails

    @property
    def queue_pairs(self) -> int:
        """Queue pairs that are open."""
        return sum(len(rail.pairs) for rail in self._rails)

    @property
    def busy(self) -> int:
        """Pieces that have not ended."""
        return len(self._waiting) + len(self._flights)

    def post(self, pieces: Sequence[Piece]) -> None:
        """Begin pieces, as far as the queues have room; the others follow. Raises as ``wait``."""
        self._waiting.extend(pieces)
        self._push()

    def wait(self, timeout: float) -> list[Done]:
        """The pieces that have ended, at least one, or none where nothing ended in ``timeout`` seconds.

        Raises ``PeerUnreachable`` where the peer is gone or the link was closed, and ``TransportUnavailable`` (with
        device, peer and meaning) where no rail is left; the link must then be closed.
        """
        until = time.monotonic() + timeout
        armed = False
        while True:
            done = self._collect(arm=armed)
            self._push()
            if done:
                return done
            left = until - time.monotonic()
            if left <= 0:
                return []
            if not armed:
                armed = True
                continue
            if self._sleep(min(left, POLL_SECONDS)):
                raise self.session.over("its process has ended the session")

    def close(self) -> None:
        """Destroy everything. Twice is harmless, from two threads too: both return when it is done."""
        self.session.close()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.eventfd_write(self._wake, 1)
            for rail in self._rails:
                _destroy(rail.pairs)
            for queue in self._queues.values():
                with contextlib.suppress(MooncakeError):
                    queue.close()
            self._flights.clear()
            self._waiting.clear()
            # Its user may be waiting on it: it has been woken, and looks at least every POLL_SECONDS.
            os.close(self._wake)
        self.session.discard()

    # Inside

    def _open_queues(self, theirs: Sequence[RdmaAddress]) -> None:
        if not self._rails:
            raise TransportUnavailable(transport="rdma", detail=why_apart(self._nics.addresses, theirs))
        settings = self._nics.settings
        self._count = max(1, settings.queue_pairs)
        self._depth = max(1, min(settings.queue_depth, DEPTH))
        for nic in self.nics:
            pairs = self._count * sum(1 for rail in self._rails if rail.ours is nic)
            # Twice: what a broken queue pair leaves behind may still be in the queue when the next one is at work.
            self._queues[nic.name] = nic.context.completion_queue(2 * pairs * min(self._depth, nic.limits.queue_depth))

    def _check(self) -> None:
        """Raise unless the link is open; the lock is held."""
        if self._closed:
            raise PeerUnreachable(peer=self.peer, detail="the channel was closed")

    def _push(self) -> None:
        """Post what waits, and connect rails again that may be tried."""
        while self._waiting:
            if to_revive(self._rails, time.monotonic()):
                self._revive()
            with self._lock:
                self._check()
                while self._waiting and (rail := pick(self._rails)) is not None:
                    assert isinstance(rail, _Rail)  # noqa: S101 - we made them
                    self._begin(rail)
                if any(rail.alive for rail in self._rails):
                    return

    def _begin(self, rail: _Rail) -> None:
        """Post the next piece on a rail with room; the lock is held."""
        piece = self._waiting.popleft()
        assert rail.theirs is not None  # noqa: S101 - we made it
        pair = rail.loads.index(min(rail.loads))
        number = next(self._ids)
        request = WorkRequest(
            number,
            piece.opcode,
            piece.local,
            piece.lkeys[rail.ours.name],
            piece.length,
            piece.remote,
            piece.rkeys[rail.theirs.device],
        )
        try:
            posted = rail.pairs[pair].post((request,))
        except MooncakeError as error:
            self._again(piece, rail, str(error))
            return
        if posted:
            self._flights[number] = _Flight(piece, rail, pair)
            rail.loads[pair] += 1
            rail.began(piece.length)
        else:  # the queue is full although we counted: let what is under way end
            self._waiting.appendleft(piece)
            rail.room = 0

    def _collect(self, *, arm: bool) -> list[Done]:
        done: list[Done] = []
        with self._lock:
            self._check()
            for queue in self._queues.values():
                if arm:
                    queue.arm()
                while found := queue.poll(POLL_COUNT):
                    for completion in found:
                        flight = self._flights.pop(completion.id, None)
                        if flight is None:
                            continue  # of a queue pair that is gone
                        flight.rail.loads[flight.pair] -= 1
                        flight.rail.ended(flight.piece.length, well=not completion.status)
                        if not completion.status:
                            done.append(Done(flight.piece))
                        elif (refusal := self._bad(flight, meaning(completion.status))) is not None:
                            done.append(refusal)
        return done

    def _bad(self, flight: _Flight, why: Meaning) -> Done | None:
        """A piece failed, and its queue pair with it; the lock is held."""
        piece, rail = flight.piece, flight.rail
        text = f"{rail.name}: {why.name}, {why.says}"
        if why.refused:
            # No fault of the rail's: its queue pairs are made anew at once.
            self._broke(rail, text, pause=False)
            return Done(piece, why)
        self._again(piece, rail, text)
        return None

    def _again(self, piece: Piece, rail: _Rail, text: str) -> None:
        """A rail broke with a piece: it is tried again elsewhere, unless it was tried often enough."""
        piece.attempts += 1
        self._waiting.appendleft(piece)
        self._broke(rail, text)
        if piece.attempts >= MAX_ATTEMPTS:
            raise TransportUnavailable(transport="rdma", detail=text)

    def _broke(self, rail: _Rail, text: str, *, pause: bool = True) -> None:
        """Destroy a rail's queue pairs, and take back what was under way on them; the lock is held."""
        log.warning("RDMA: %s", text)
        lost = [number for number, flight in self._flights.items() if flight.rail is rail]
        _destroy(rail.pairs)
        for number in reversed(lost):
            flight = self._flights.pop(number)
            rail.ended(flight.piece.length, well=False)
            self._waiting.appendleft(flight.piece)
        if pause:
            rail.failed(time.monotonic())
        else:
            rail.alive = False
            rail.paused_until = 0.0

    def _revive(self) -> None:
        """Connect the rails that may be tried. Raises what the last failed with, where none is alive then."""
        error: MooncakeError | None = None
        for rail in to_revive(self._rails, time.monotonic()):
            assert isinstance(rail, _Rail)  # noqa: S101 - we made them
            try:
                self._connect(rail)
            except (TransportUnavailable, RemoteError) as found:
                error = found
                if self._closed or self.session.gone or isinstance(found, RemoteError):
                    break
                log.warning("RDMA: %s cannot be connected: %s", rail.name, found)
                rail.failed(time.monotonic())
        if error is not None and not any(rail.alive for rail in self._rails):
            raise error

    def _connect(self, rail: _Rail) -> None:
        nics, nic, theirs = self._nics, rail.ours, rail.theirs
        assert theirs is not None  # noqa: S101 - we made it
        depth = min(self._depth, nic.limits.queue_depth)
        try:
            with self._lock:
                self._check()
                queue = self._queues[nic.name]
                for _ in range(self._count):
                    rail.pairs.append(nic.context.queue_pair(queue, depth))
                pairs = list(rail.pairs)
            initiate = min(MAX_READS, nic.limits.initiate)
            respond = min(MAX_READS, nic.limits.respond)
            answer = self.session.connect(
                Setup(
                    local_nic=f"{self._name}@{nic.name}",
                    peer_nic=f"{self.peer}@{theirs.device}",
                    numbers=tuple(pair.number for pair in pairs),
                    gid=nic.gid.raw,
                    lid=nic.info.lid,
                    mtu=nics.mtu(nic),
                    initiate=initiate,
                    respond=respond,
                    session=True,
                    replaces=tuple(rail.numbers),
                )
            )
            rail.numbers = list(answer.numbers)
            with self._lock:
                self._check()
                for pair, number in zip(pairs, answer.numbers, strict=True):
                    route = QueuePairPath(
                        port=nic.report.port,
                        gid_index=nic.gid.index,
                        gid=answer.gid if any(answer.gid) else theirs.gid,
                        lid=answer.lid,
                        number=number,
                        mtu=min(nics.mtu(nic), answer.mtu or nics.mtu(nic)),
                        initiate=min(initiate, answer.respond or MAX_READS),
                        respond=respond,
                        service_level=max(0, nics.settings.service_level),
                        traffic_class=max(0, nics.settings.traffic_class),
                        pkey_index=nics.settings.pkey_index,
                    )
                    pair.connect(route, Access.LOCAL_WRITE)
        except BaseException:
            with self._lock:
                if not self._closed:
                    _destroy(rail.pairs)
            raise
        rail.loads = [0] * len(pairs)
        rail.alive, rail.room = True, depth * len(pairs)

    def _sleep(self, seconds: float) -> bool:
        """Wait for a completion, for ``close`` or for the peer's end; whether it was that."""
        with self._lock:
            self._check()
            poller = select.poll()
            fds = {queue.fd: queue for queue in self._queues.values()}
            for fd in (*fds, self._wake):
                poller.register(fd, select.POLLIN)
            session = self.session.fd if self.session.kept else -1
            if session >= 0:
                poller.register(session, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(seconds * 1000)}
        with self._lock:
            self._check()
            for fd in ready & fds.keys():
                fds[fd].acknowledge()
        # Between requests an owner says nothing: what comes is the end.
        return session in ready


def _destroy(pairs: list[QueuePair]) -> None:
    while pairs:
        with contextlib.suppress(MooncakeError):
            pairs.pop().close()
