"""The workers of a pull: threads that bring bytes from a source into the destination's sink, which hashes and writes.

Each has a channel of its own. It takes runs from the queue of its source, keeps a second request on its way while the
first one's bytes arrive, and reports to the owner (``p2pstore.pull.owner``) what became of them: it posts, and goes on.

**Two never write one place.** Before the bytes of a run may be written, its worker notes it in ``writing``; only the
owner takes it off again, when it hears what became of the run. So the owner knows, when it tells a worker to stop,
which runs may still be written: it sets ``closed`` and then reads ``writing``, and the worker writes ``writing`` and
then reads ``closed``, so that one of them sees the other.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty
from typing import TYPE_CHECKING

from engine.errors import MooncakeError, RemoteError, TransportUnavailable
from engine.net import addresses
from engine.transports.limited import LimitedChannel, LimitedSink
from p2pstore.pull.task_queue import TaskQueue
from p2pstore.pull.tuning import PIECE_BYTES
from p2pstore.swarm.files import NO_FILES, Files

if TYPE_CHECKING:
    from engine.net.rate import RateLimit
    from engine.transports.base import Channel, PeerAddress
    from p2pstore.pull.destination import Destination

log = logging.getLogger(__name__)

PIPELINE_BYTES = 4 << 20
"""A worker has a second request on its way, and more while together they are below this."""

MAX_PIPELINE = 16
"""Requests under way on one channel, however small."""

IDLE_SECONDS = 1.0
"""How long a worker waits for its queue before it looks whether it was told to stop."""


@dataclass(frozen=True)
class Source:
    """A peer that has some of the object: its node name, how to reach it, and the address of the object there.

    ``transports`` are the names of those to try, the best first.
    """

    node: str
    peer: PeerAddress
    address: int
    transports: tuple[str, ...]


@dataclass(frozen=True)
class Arrived:
    """A run is verified and written, and the destination remembers it."""

    worker: Worker
    run: range
    length: int
    now: float


@dataclass(frozen=True)
class Nearing:
    """All of a run but its lead has come."""

    worker: Worker
    run: range
    now: float


@dataclass(frozen=True)
class Broke:
    """A worker's channel broke, or the destination did; whatever was under way on it, the oldest first, is lost.

    Of the oldest run the first ``kept`` chunks arrived. ``cancelled``: the owner had it so. ``transport`` is what to go
    on with where the one before was of no use, and None where there is no other.
    """

    worker: Worker
    error: Exception
    runs: tuple[range, ...]
    kept: int
    cancelled: bool
    transport: str | None
    now: float


@dataclass(frozen=True)
class Left:
    """A worker has ended, and its channel is closed; ``error`` is what nobody foresaw."""

    worker: Worker
    error: BaseException | None


Report = Arrived | Nearing | Broke | Left


@dataclass(frozen=True)
class WorkerContext:
    """What the workers of one pull have in common. ``post`` takes their reports, and does not block."""

    destination: Destination
    open_channel: Callable[[PeerAddress, str], Channel]
    limit: RateLimit
    post: Callable[[Report], None]


class Member:
    """A source and the workers that bring from it. ``closed``, once set, makes them leave."""

    def __init__(self, source: Source, files: Files = NO_FILES) -> None:
        """``files`` are those that are written to, where several at once are better."""
        self.source = source
        self.tasks = TaskQueue(files)
        self.workers: list[Worker] = []
        self.closed = False
        self.told = source.transports[0] if source.transports else ""  # the transport that the user knows of
        self._transport = 0
        self._guard = threading.Lock()  # of the number above, for as long as it takes to count

    def close(self) -> list[tuple[Worker, list[range]]]:
        """Tell its workers to stop, whatever they wait for: those that may still write, and which runs."""
        self.closed = True
        self.tasks.close()
        writing = [(worker, worker.writing.copy()) for worker in self.workers]
        for worker in self.workers:
            worker.interrupt()
        return [(worker, runs) for worker, runs in writing if runs]

    def cancel(self, run: range) -> bool:
        """Take a run away from its worker, who reports it. True where no worker had it, and so nobody does."""
        if self.tasks.withdraw(run):
            return True
        for worker in self.workers:
            if run in worker.pending:
                worker.cancel()
        return False

    @property
    def transport(self) -> str:
        """The transport that works, as far as is known."""
        return self.source.transports[self._transport]

    @property
    def shown(self) -> str:
        """Its node, where that is asked for bytes, and over which transport, for people."""
        peer = self.source.peer
        return f"{self.source.node} ({addresses.join(peer.host, peer.data_port)}, {self.transport})"

    def fall_back(self, used: str) -> str | None:
        """What to use now that ``used`` turned out to be of no use, for all workers; None where that was the last."""
        names = self.source.transports
        with self._guard:
            if used == names[self._transport]:
                if used == names[-1]:
                    return None
                self._transport += 1
            return names[self._transport]


class Worker:
    """One thread and its channel to a source, and what is under way on it, the oldest first.

    ``piece_bytes`` is the size of what it receives into, hashes and writes from.
    """

    def __init__(self, job: WorkerContext, member: Member, piece_bytes: int = PIECE_BYTES) -> None:
        self.member = member
        self.writing: list[range] = []
        self.pending: list[range] = []  # asked for; the oldest is being received
        self.transport = ""
        self._job = job
        self._piece_bytes = piece_bytes
        self._sink: LimitedSink | None = None  # of what is being received
        self._came = 0  # in bytes, before that
        self._storing = False
        self._manifest = job.destination.manifest
        self._channel: Channel | None = None
        self._lengths: list[int] = []  # of ``pending``, in bytes
        self._leads: dict[range, float] = {}  # of those of them that have one
        self._kept = 0
        self._cancelled = False

    # What the owner calls

    @property
    def came(self) -> int:
        """Bytes that it has received, verified or not."""
        sink = self._sink
        return self._came + (0 if sink is None else sink.came)

    @property
    def storing(self) -> bool:
        """Whether it is at work at the destination, rather than at its channel."""
        sink = self._sink
        return self._storing or (sink is not None and sink.filling)

    def cancel(self) -> None:
        """Break what it waits for; it then reports what is lost, and goes on."""
        self._cancelled = True
        self.interrupt()

    def interrupt(self) -> None:
        """Wake it from whatever it waits for at its channel."""
        channel = self._channel
        if channel is not None:
            try:
                channel.close()
            except Exception:
                log.exception("a channel cannot be closed")

    # What follows runs in its thread

    def run(self) -> None:
        """Bring what the queue of its source asks for, until it is told to stop."""
        error: BaseException | None = None
        try:
            scratch = memoryview(bytearray(self._piece_bytes))
            while not self.member.closed:
                try:
                    self._step(scratch)
                except Exception as fault:  # noqa: BLE001 - the owner sorts every fault
                    self._report(fault)
        except BaseException as unforeseen:  # noqa: BLE001 - the owner ends the pull with it
            error = unforeseen
        finally:
            try:
                self._hang_up()
            finally:
                self._job.post(Left(self, error))

    def _step(self, scratch: memoryview) -> None:
        """Top the pipeline up, then bring the oldest run in."""
        tasks = self.member.tasks
        while self._room():
            try:
                task = tasks.take(self, block=not self.pending, timeout=IDLE_SECONDS)
            except Empty:
                break
            if task is None or self.member.closed:
                tasks.close()  # for the other workers of this source
                return
            if task.lead:
                self._leads[task.run] = task.lead
            self._submit(task.run)
        if self.pending:
            self._receive(scratch)

    def _room(self) -> bool:
        """Whether another request should be sent before the oldest is waited for."""
        count = len(self.pending)
        return count < 2 or (count < MAX_PIPELINE and sum(self._lengths) < PIPELINE_BYTES)

    def _submit(self, run: range) -> None:
        first, last = self._manifest.chunk(run[0]), self._manifest.chunk(run[-1])
        length = last.offset + last.length - first.offset
        self.pending.append(run)
        self._lengths.append(length)
        channel = self._channel or self._open()
        place = self._job.destination.place(run) if channel.in_place else None
        if place is not None:  # the channel may write there before it is received
            try:
                self._begin_to_write(run)
            except ToldToStop:
                place.close()
                raise
        channel.submit(self.member.source.address + first.offset, length, place)

    def _receive(self, scratch: memoryview) -> None:
        channel, run = self._channel, self.pending[0]
        assert channel is not None  # noqa: S101 - something was submitted
        destination = self._job.destination
        self._storing = True
        sink = destination.sink(run, scratch)
        self._storing = False
        mark = self._lengths[0] * (1 - self._leads.pop(run)) if run in self._leads else math.inf
        limited = self._sink = LimitedSink(
            sink, self._job.limit, over=self._unwanted, mark=mark, on_mark=lambda: self._nearing(run)
        )
        try:
            if run not in self.writing:
                self._begin_to_write(run)
            channel.receive(limited)
        except BaseException:
            self._kept = sink.kept
            raise
        finally:
            self._sink = None
            self._came += limited.came
            sink.close()
        self._storing = True
        destination.keep(run)
        self._storing = False
        del self.pending[0]
        self._job.post(Arrived(self, run, self._lengths.pop(0), time.monotonic()))

    def _nearing(self, run: range) -> None:
        self._job.post(Nearing(self, run, time.monotonic()))

    def _unwanted(self) -> bool:
        """Whether nobody waits any more for what it brings."""
        return self.member.closed or self._cancelled

    def _begin_to_write(self, run: range) -> None:
        """From now on bytes of a run may be written, unless the worker was told to stop."""
        self.writing.append(run)
        if self.member.closed:
            raise ToldToStop

    def _open(self) -> Channel:
        member = self.member
        self.transport = name = member.transport
        try:
            channel = self._job.open_channel(member.source.peer, name)
        except RemoteError as error:
            if name == member.source.transports[-1]:
                raise
            raise TransportUnavailable(transport=name, detail=str(error)) from error  # the next may well get through
        self._channel = LimitedChannel(channel, self._job.limit) if channel.streamed else channel
        if member.closed:
            raise ToldToStop
        return self._channel

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _report(self, error: Exception) -> None:
        """Say what went wrong and what is lost with it, and start over with a new channel."""
        self._storing = False
        self._hang_up()  # first: a device may write until then
        arrived = self.pending[0][: self._kept] if self._kept else range(0)
        if arrived:
            try:
                self._job.destination.keep(arrived)
            except MooncakeError as second:  # the journal's disk is full, too
                error, arrived = second, range(0)
        transport = None
        if isinstance(error, TransportUnavailable):
            transport = self.member.fall_back(self.transport)
        runs = tuple(self.pending)
        broke = Broke(self, error, runs, len(arrived), self._cancelled, transport, time.monotonic())
        self.pending.clear()
        self._lengths.clear()
        self._leads.clear()
        self._kept = 0
        self._cancelled = False
        self._job.post(broke)


class ToldToStop(Exception):
    """The worker was told to stop."""
