"""The pull: carries out what the planner decides, with a few threads a peer, each with a channel of its own.

One lock guards the planner; whatever happens (a source found, chunks arrived, a channel broke, time passed) is handed
to it as an event, and the fetches that come back are put into the queue of their peer. The threads of a peer take them
from there, keep a second request on its way while the first one's bytes arrive, and bring the bytes into the
destination's sink, which hashes and writes them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from engine.errors import MooncakeError, RangeRefused, RemoteError, StorageError, TransportUnavailable
from engine.net.rate import RateLimit
from engine.transports.base import Channel, PeerAddress
from engine.transports.limited import LimitedSink
from p2pstore.errors import ChunkMismatch
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull.destination import Destination, Mismatch
from p2pstore.swarm.events import (
    Action,
    Ask,
    Cancel,
    Event,
    Failed,
    Fault,
    Fetch,
    Fetched,
    Offered,
    PeerAdded,
    PeerGone,
    PeerHas,
    PeerShared,
    Tick,
)
from p2pstore.swarm.planner import Planner

log = logging.getLogger(__name__)

SCRATCH_BYTES = 1 << 18
"""What a thread receives into, hashes and writes from: larger costs cache, smaller costs calls."""

PIPELINE_BYTES = 4 << 20
"""A thread has a second request on its way, and more while together they are below this."""

MAX_PIPELINE = 16
"""Requests under way on one channel, however small."""

RELEASE_SECONDS = 5.0
"""How long the last write of a source that is given up may take."""

IDLE_SECONDS = 1.0
"""How long a thread waits for its queue before it looks whether the pull is over."""


@dataclass(frozen=True)
class Source:
    """A peer that has some of the object: its node name, how to reach it, and the address of the object there.

    ``transports`` are the names of those to try, the best first.
    """

    node: str
    peer: PeerAddress
    address: int
    transports: tuple[str, ...]


@dataclass
class _Member:
    source: Source
    tasks: SimpleQueue[range | None] = field(default_factory=SimpleQueue)
    channels: set[Channel] = field(default_factory=set)
    lanes: list[_Lane] = field(default_factory=list)
    transport: int = 0
    closed: bool = False

    def cancel(self, run: range) -> None:
        """Break the lane that waits for a run; its thread then reports what is lost with it."""
        for lane in self.lanes:
            if lane.channel is not None and any(pending == run for pending, _ in tuple(lane.pending)):
                lane.cancelled = True
                lane.channel.close()


class Pull:
    """One pull of one object into one destination. Its methods may be called from any thread."""

    def __init__(
        self,
        destination: Destination,
        had: Bitmap,
        *,
        open_channel: Callable[[PeerAddress, str], Channel],
        connections: int,
        limit: RateLimit,
        on_progress: Callable[[], None],
        on_chunks: Callable[[range], None],
        on_ask: Callable[[str, int, Sequence[range]], None],
        on_drop: Callable[[str, bool], None],
        on_wrong: Callable[[str, int], None],
        note: Callable[[str], None],
    ) -> None:
        """``had`` is what the destination has, and is kept up to date.

        ``on_progress`` is called when the pull may have ended, ``on_chunks`` with verified runs that ``had`` holds by
        then, ``on_ask`` when a source is to be asked for so many offers (``offered`` is the answer) and told what is
        done, ``on_drop`` when a source is given up, ``on_wrong`` when one sent wrong bytes for a chunk, ``note`` with a
        line for the user: each from any thread, ``on_ask`` and ``on_drop`` with the lock held.
        """
        self.manifest = destination.manifest
        self.bytes_by_node: dict[str, int] = {}
        self.bytes_by_transport: dict[str, int] = {}
        self.error: MooncakeError | None = None
        self.last_fault: MooncakeError | None = None
        self._destination = destination
        self._open_channel = open_channel
        self._connections = connections
        self._limit = limit
        self._on_progress = on_progress
        self._on_chunks = on_chunks
        self._on_ask = on_ask
        self._on_drop = on_drop
        self._on_wrong = on_wrong
        self._note = note
        self._planner = Planner([c.length for c in self.manifest.all_chunks()], had)
        self._lock = threading.Lock()
        self._members: dict[str, _Member] = {}
        self._threads: list[threading.Thread] = []
        self._over = False

    @property
    def finished(self) -> bool:
        """Whether every chunk is there, or an error of our own ended it."""
        return self._planner.done or self.error is not None

    @property
    def stuck(self) -> bool:
        """Whether no known source has what is missing."""
        with self._lock:
            return self._planner.stuck

    @property
    def active(self) -> int:
        """Sources that are being fetched from."""
        with self._lock:
            return self._planner.active

    @property
    def bytes_pulled(self) -> int:
        """Verified bytes that came from sources."""
        return sum(self.bytes_by_node.values())

    def add(self, source: Source, have: Bitmap, distance: int, shared: bool = False) -> None:  # noqa: FBT001
        """A source was found, or found again (perhaps at another address). ``shared``: others get from it, too."""
        with self._lock:
            known = self._members.get(source.node)
            if known is not None and known.source != source:
                self._release(source.node)
                self._dispatch(PeerGone(source.node))
                known = None
            if self._over or source.node in self._planner.banned:
                return
            if known is None:
                member = self._members[source.node] = _Member(source)
                for number in range(self._connections):
                    thread = threading.Thread(
                        target=self._work, args=(member,), name=f"pull-{source.node}-{number}", daemon=True
                    )
                    self._threads.append(thread)
                    thread.start()
            self._dispatch(PeerAdded(source.node, have, distance, shared))

    def has(self, node: str, chunks: Sequence[int]) -> None:
        """A source has more chunks."""
        with self._lock:
            self._dispatch(PeerHas(node, chunks))

    def shared(self, node: str, shared: bool) -> None:  # noqa: FBT001 - what it is about
        """Others get from a source, too, or no longer do."""
        with self._lock:
            self._dispatch(PeerShared(node, shared))

    def offered(self, node: str, runs: Sequence[range], over: bool) -> None:  # noqa: FBT001 - as the planner's event
        """A source was asked for offers, and answered."""
        with self._lock:
            self._dispatch(Offered(node, runs, over))

    def remove(self, node: str) -> None:
        """A source is gone."""
        with self._lock:
            self._release(node)
            self._dispatch(PeerGone(node))

    def tick(self) -> None:
        """Time went on; call it several times a second."""
        with self._lock:
            self._dispatch(Tick(time.monotonic()))

    def close(self, timeout: float = 10.0) -> None:
        """End every thread and channel; return when they are gone, or after ``timeout`` seconds."""
        with self._lock:
            self._over = True
            for node in list(self._members):
                self._release(node)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s did not end in time", thread.name)

    def _dispatch(self, event: Event) -> None:
        """Hand an event to the planner and carry out what it says. The lock is held."""
        if not self._over:
            for action in self._planner.handle(event):
                self._act(action)

    def _act(self, action: Action) -> None:
        if isinstance(action, Fetch):
            self._members[action.peer].tasks.put(action.run)
        elif isinstance(action, Ask):
            self._on_ask(action.peer, action.count, action.done)
        elif isinstance(action, Cancel):
            self._members[action.peer].cancel(action.run)
        else:
            self._release(action.peer)
            self._on_drop(action.peer, action.banned)

    def _release(self, node: str) -> None:
        """Let a source's threads end, whatever they wait for. The lock is held.

        When it returns they write no more: what was asked of them may be asked of others, who write the same place.
        """
        member = self._members.pop(node, None)
        if member is None:
            return
        member.closed = True
        member.tasks.put(None)
        for channel in member.channels:
            channel.close()
        for lane in member.lanes:
            if lane.receiving.acquire(timeout=RELEASE_SECONDS):
                lane.receiving.release()
            else:
                detail = f"a write has not ended for {RELEASE_SECONDS:g} s"
                self.error = self.error or StorageError(path="the destination", detail=detail)

    # What follows runs in the threads of the members.

    def _work(self, member: _Member) -> None:
        scratch = memoryview(bytearray(SCRATCH_BYTES))
        lane = _Lane(member)
        with self._lock:
            member.lanes.append(lane)
        try:
            while not (member.closed or self._over):
                try:
                    self._step(lane, scratch)
                except Exception as error:  # noqa: BLE001 - every fault is sorted in _fault, ours among them
                    self._fault(lane, error)
        finally:
            self._forget(lane)

    def _step(self, lane: _Lane, scratch: memoryview) -> None:
        """Top the pipeline up, then bring the oldest run in."""
        while lane.room():
            try:
                run = lane.member.tasks.get(block=not lane.pending, timeout=IDLE_SECONDS)
            except Empty:
                break
            if run is None:
                lane.member.tasks.put(None)  # for the other threads of this member
                return
            first, last = self.manifest.chunk(run[0]), self.manifest.chunk(run[-1])
            length = last.offset + last.length - first.offset
            lane.pending.append((run, length))
            if lane.channel is None:
                self._open(lane)
            assert lane.channel is not None  # noqa: S101 - _open sets it or raises
            place = self._destination.place(run)
            lane.channel.submit(lane.member.source.address + first.offset, length, place)
        if lane.pending and lane.channel is not None:
            self._receive(lane, lane.channel, scratch)

    def _receive(self, lane: _Lane, channel: Channel, scratch: memoryview) -> None:
        run, length = lane.pending[0]
        sink = self._destination.sink(run, scratch)
        try:
            with lane.receiving:
                if lane.member.closed:
                    return
                channel.receive(LimitedSink(sink, self._limit, over=lambda: lane.given_up() or self._over))
        except BaseException:
            lane.kept = sink.kept
            raise
        finally:
            sink.close()
        lane.pending.popleft()
        with self._lock:
            if lane.given_up():
                return  # meanwhile, and its chunks were asked of others
            self._count(lane, length)
            self._dispatch(Fetched(lane.member.source.node, run, time.monotonic()))
        self._keep(run)
        if self._planner.done:
            self._on_progress()

    def _count(self, lane: _Lane, length: int) -> None:
        """So many verified bytes came from a lane. The lock is held."""
        if not length:
            return
        for counted, key in ((self.bytes_by_node, lane.member.source.node), (self.bytes_by_transport, lane.transport)):
            counted[key] = counted.get(key, 0) + length

    def _keep(self, run: range) -> None:
        """Remember and spread what ``had`` holds by now: a peer that asks at once must not be refused."""
        self._destination.keep(run)
        self._on_chunks(run)

    def _open(self, lane: _Lane) -> None:
        member = lane.member
        name = member.source.transports[member.transport]
        lane.transport = name
        try:
            channel = self._open_channel(member.source.peer, name)
        except RemoteError as error:
            if name == member.source.transports[-1]:
                raise
            raise TransportUnavailable(transport=name, detail=str(error)) from error  # the next may well get through
        with self._lock:
            if not member.closed:
                lane.channel = channel
                member.channels.add(channel)
                return
        channel.close()
        raise TransportUnavailable(transport=name, detail="the source was given up")

    def _forget(self, lane: _Lane) -> None:
        channel, lane.channel = lane.channel, None
        if channel is not None:
            channel.close()
            with self._lock:
                lane.member.channels.discard(channel)

    def _fault(self, lane: _Lane, error: Exception) -> None:
        """Sort out what went wrong, tell the planner, and start over with a new channel."""
        self._forget(lane)
        if lane.member.closed or self._over:
            return
        fault = self._sort(lane, error)
        lane.cancelled = False
        arrived = lane.pending[0][0][: lane.kept] if lane.kept else range(0)
        kept, lane.kept = lane.kept, 0
        with self._lock:
            if lane.given_up():
                return
            self._count(lane, sum(self.manifest.chunk(c).length for c in arrived))
            while lane.pending:
                run, _ = lane.pending.popleft()
                self._dispatch(Failed(lane.member.source.node, run, fault, time.monotonic(), kept))
                fault, kept = Fault.UNTRIED, 0
        if arrived:
            try:
                self._keep(arrived)
            except MooncakeError as second:  # the journal's disk is full, too
                self.error = self.error or second
        self._on_progress()

    def _sort(self, lane: _Lane, error: Exception) -> Fault:
        node = lane.member.source.node
        if isinstance(error, Mismatch):
            self.last_fault = ChunkMismatch(peer=node, chunk=error.chunk)
            self._on_wrong(node, error.chunk)
            log.error("%s; the peer is banned from this get", self.last_fault)
            self._note(f"{self.last_fault}; it is not asked any more")
            return Fault.CORRUPT
        if isinstance(error, TransportUnavailable):
            return self._next_transport(lane, error)
        if isinstance(error, RemoteError) and lane.cancelled:
            log.info("%s is slow; its chunks are asked of others", node)
            return Fault.SLOW
        if isinstance(error, RemoteError):
            self.last_fault = error
            log.warning("%s", error)
            return Fault.GONE if isinstance(error, RangeRefused) else Fault.LOST
        if not isinstance(error, MooncakeError):
            log.error("a pull's thread failed", exc_info=error)
            error = MooncakeError(detail=repr(error))
        self.error = self.error or error
        return Fault.UNTRIED

    def _next_transport(self, lane: _Lane, error: TransportUnavailable) -> Fault:
        """Fall back to the source's next transport, once for all its threads."""
        member = lane.member
        names = member.source.transports
        with self._lock:
            behind = lane.transport == names[member.transport]
            last = member.transport + 1 == len(names)
            if behind and not last:
                member.transport += 1
                self._note(f"{error}; going on over {names[member.transport]}")
        if behind and last:
            self.last_fault = error
            return Fault.GONE
        return Fault.UNTRIED


class _Lane:
    """One thread's channel to a member, and what is under way on it, the oldest first."""

    def __init__(self, member: _Member) -> None:
        self.member = member
        self.channel: Channel | None = None
        self.transport = ""
        self.pending: deque[tuple[range, int]] = deque()
        self.kept = 0
        self.cancelled = False
        self.receiving = threading.Lock()  # held while bytes are written

    def given_up(self) -> bool:
        """Whether its member was, by another thread perhaps: look with the pull's lock held."""
        return self.member.closed

    def room(self) -> bool:
        """Whether another request should be sent before the oldest is waited for."""
        count = len(self.pending)
        return count < 2 or (count < MAX_PIPELINE and sum(length for _, length in self.pending) < PIPELINE_BYTES)
