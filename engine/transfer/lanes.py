"""Lanes: the connections to one peer, the threads that work on them, and what happens to a slice that fails.

Work waits in jobs, one for each batch and peer. A lane takes a few slices of one job at a time, so that small requests
are pipelined and large ones spread over all lanes. The thread that waits for a synchronous transfer is a lane too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from engine.errors import Closed, MooncakeError, PeerStalled, PeerUnreachable, RangeRefused, TransferFailed
from engine.net.backoff import Backoff
from engine.net.threads import Failure, Threads
from engine.protocol.wire import LATEST_VERSION
from engine.transfer.batch import Batch, Slice
from engine.transfer.endpoint import Endpoint
from engine.transfer.tcp_connection import Connection

if TYPE_CHECKING:
    from engine.config.settings import EngineSettings

MAX_PIPELINED = 16
"""Slices that a lane takes at a time."""

MAX_PIPELINED_BYTES = 4 << 20
"""Bytes after which a lane takes no further slice."""

LANE_BYTES = 1 << 20
"""Bytes of a job for which a further lane is worth it: below, waking a thread takes longer than moving them."""

MAX_IDLE = 16
"""Connections kept open between uses."""

IDLE_SECONDS = 10.0
"""Seconds after which a lane without work ends."""

BACKOFF = Backoff(0.05, 1.0)
"""Pauses between attempts to connect."""

CLOSE_TIMEOUT = 2.0
"""Seconds in which ``close`` ends, though a lane may be connecting still."""

log = logging.getLogger(__name__)


class Mover(Protocol):
    """A connection that moves slices, used by one thread at a time: over TCP a ``Connection``, over RDMA a ``Carrier``.

    What its methods raise is said there.
    """

    endpoint: Endpoint
    aborted: bool

    def abort(self) -> None:
        """Break off whatever it is doing; any thread may."""

    def close(self) -> None:
        """Close it."""

    def carry(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        """Move slices."""


def over_tcp(endpoint: Endpoint, settings: EngineSettings) -> Mover:
    """A new TCP connection. Raises ``OSError``."""
    return Connection(endpoint, connect_timeout=settings.connect_timeout, stall_timeout=settings.stall_timeout)


def _ignore(piece: Slice) -> None:
    """Nobody waits to hear of it."""


class Job:
    """The slices of one batch that go to one peer."""

    def __init__(self, batch: Batch, slices: deque[Slice], lanes: int) -> None:
        """At most ``lanes`` lanes are to work on it."""
        self.batch = batch
        size = sum(piece.length for piece in slices)
        self.lanes = max(1, min(lanes, len(slices), size // LANE_BYTES))
        self._slices = slices
        self._lock = threading.Lock()
        self._active: set[Mover] = set()
        self._taken = 0  # by lanes that have not left them yet

    def __len__(self) -> int:
        return len(self._slices)

    @property
    def over(self) -> bool:
        """Whether no slice waits, and no lane is at work on any."""
        with self._lock:
            return not self._slices and not self._taken

    def take(self) -> deque[Slice]:
        """The next slices of one opcode for one lane, which must ``leave`` them; empty when none are left."""
        run: deque[Slice] = deque()
        dropped: list[Slice] = []
        with self._lock:
            share = max(1, min(MAX_PIPELINED, len(self._slices) // self.lanes))
            size = 0
            while self._slices and len(run) < share and size < MAX_PIPELINED_BYTES:
                piece = self._slices[0]
                if not self.batch.wanted(piece):
                    dropped.append(self._slices.popleft())
                    continue
                if run and piece.transfer.opcode is not run[0].transfer.opcode:
                    break
                run.append(self._slices.popleft())
                size += piece.length
            self._taken += bool(run)
        for piece in dropped:
            self.batch.skipped(piece)
        return run

    def leave(self) -> None:
        """A lane has done with the slices that it took: none of them is its own any more."""
        with self._lock:
            self._taken -= 1

    def put_back(self, run: deque[Slice]) -> None:
        """Give slices back that were not moved."""
        with self._lock:
            self._slices.extendleft(reversed(run))

    def fail_all(self, error: MooncakeError, run: deque[Slice] | None = None) -> None:
        """Give up whatever no lane has taken, and what is left of ``run``, which the caller has."""
        with self._lock:
            left = [*(run or ()), *self._slices]
            self._slices.clear()
        for piece in left:
            self.batch.failed(piece, error)

    def begin(self, connection: Mover) -> None:
        """Note that a connection works for this job."""
        with self._lock:
            self._active.add(connection)
        if self.batch.cancelled:
            connection.abort()

    def end(self, connection: Mover) -> None:
        """Note that it does no more."""
        with self._lock:
            self._active.discard(connection)

    def abort(self) -> None:
        """Break off its connections, and drop what waits."""
        with self._lock:
            active = list(self._active)
        for connection in active:
            connection.abort()
        while self.take():  # a cancelled batch wants none: all are dropped
            pass


class Peer:
    """The lanes to one segment. Thread-safe."""

    def __init__(
        self,
        name: str,
        locate: Callable[[bool], Endpoint],
        settings: EngineSettings,
        connect: Callable[[Endpoint, EngineSettings], Mover] = over_tcp,
    ) -> None:
        """``locate(again)`` says where the data server is; ``again`` asks not to trust what is cached.

        ``connect`` makes a connection; it raises ``OSError`` where another attempt may help, and ``BlockingIOError``
        where one of those that there are must be waited for.
        """
        self.name = name
        self._connect_to = connect
        self._locate = locate
        self._settings = settings
        self._work = threading.Condition(threading.Lock())
        self._jobs: deque[Job] = deque()
        self._idle: list[Mover] = []
        self._under_way: set[Job] = set()
        self._at_once: set[Mover] = set()
        self._threads = Threads()
        self._lanes = 0
        self._waiting = 0
        self._closed = False

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the lanes that nobody foresaw."""
        return self._threads.failures

    def submit(self, job: Job) -> None:
        """Work on ``job`` in the background. Where that is not possible, its slices fail."""
        self._offer(job, job.lanes, helped=False)

    def run(self, job: Job) -> None:
        """Work on ``job`` in this thread, and in others where there is enough to do. Raises only interruptions."""
        if self._offer(job, job.lanes - 1, helped=True):
            self._carry_out(job)

    def run_at_once(self, piece: Slice) -> bool:
        """Move one slice over a connection that is open already, in this thread and without a job.

        A small transfer spends most of its time on its own bookkeeping. False where no connection is idle, or where
        this one failed: then nothing is known of the slice, and a job should move it. Raises as ``Connection.carry``,
        ``OSError`` excepted.
        """
        with self._work:
            if not self._idle or self._closed:
                return False
            connection = self._idle.pop()
            self._at_once.add(connection)
        whole = False
        try:
            connection.carry(deque((piece,)), _ignore)
            whole = True
        except OSError:
            self._forget_idle()
        finally:
            with self._work:
                self._at_once.discard(connection)
                kept = whole and not self._closed and len(self._idle) < MAX_IDLE
                if kept:
                    self._idle.append(connection)
                else:
                    self._work.notify_all()  # it may be what ``close`` waits for
            if not kept:
                connection.close()
        return whole

    def close(self) -> None:
        """Break off what is under way, end the lanes, close the connections. Batches that had a job here are cancelled.

        When it has returned no byte arrives in the memory of a transfer any more.
        """
        with self._work:
            self._closed = True
            jobs = list(self._under_way)
            for connection in self._at_once:
                connection.abort()
            self._work.notify_all()
        for job in jobs:
            job.batch.cancel()
        self._threads.stop()
        self._forget_idle()
        until = time.monotonic() + CLOSE_TIMEOUT
        with self._work:
            quiet = self._work.wait_for(lambda: not self._at_once and all(job.over for job in jobs), CLOSE_TIMEOUT)
        if not self._threads.join(max(0.0, until - time.monotonic())) or not quiet:
            log.warning("transfers with %s have not ended in %g s", self.name, CLOSE_TIMEOUT)

    def _offer(self, job: Job, lanes: int, *, helped: bool) -> bool:
        """Have ``lanes`` lanes work on a job, besides the caller where it is ``helped``. False where nobody will."""
        refusal: MooncakeError | None = None
        with self._work:
            if self._closed:
                refusal = Closed(what=f"segment {self.name!r}")
            else:
                for _ in range(min(lanes - self._waiting, self._settings.lanes - self._lanes)):
                    if self._threads.serve(f"lane to {self.name}", self._lane) is None:
                        break
                    self._lanes += 1
                if not self._lanes and not helped:
                    refusal = MooncakeError(detail="no thread could be started for a transfer")
                else:
                    self._under_way.add(job)
                    if lanes:
                        self._jobs.append(job)
                        self._work.notify(lanes)
        if refusal is not None:
            job.fail_all(refusal)
        return refusal is None

    def _lane(self) -> bool:
        """Wait for a job and work on it; false when there was none for long, and at the end."""
        with self._work:
            self._waiting += 1
            found = self._work.wait_for(lambda: self._closed or self._any(), IDLE_SECONDS)
            self._waiting -= 1
            job = self._next()
            if job is None:
                if found and not self._closed:
                    return True  # others were quicker
                self._lanes -= 1
                return False
        self._carry_out(job)
        return True

    def _any(self) -> bool:
        """Whether a job waits; those of which all has been taken are dropped. The lock is held."""
        while self._jobs and not len(self._jobs[0]):
            self._settle(self._jobs.popleft())
        return bool(self._jobs)

    def _next(self) -> Job | None:
        """The job whose turn it is, which has its next one after all others; the lock is held."""
        if not self._any():
            return None
        self._jobs.rotate(-1)
        return self._jobs[-1]

    def _settle(self, job: Job) -> None:
        """Keep no account of a job that is over; the lock is held."""
        if job.over:
            self._under_way.discard(job)
            if self._closed:
                self._work.notify_all()

    def _carry_out(self, job: Job) -> None:
        """Move slices of a job until none is left to take. An error that nobody foresaw ends the job, not the lane."""
        try:
            while run := job.take():
                try:
                    self._carry(job, run)
                except BaseException as error:
                    job.fail_all(MooncakeError(detail=f"{type(error).__name__}: {error}"), run)
                    if not isinstance(error, Exception):
                        raise
                    self._threads.note(f"lane to {self.name}", error)
                finally:
                    job.leave()
        finally:
            with self._work:
                self._settle(job)

    def _carry(self, job: Job, run: deque[Slice]) -> None:
        try:
            connection = self._connect(job)
        except MooncakeError as error:
            job.fail_all(error, run)
            return
        if connection is None:
            job.put_back(run)
            return
        job.begin(connection)
        whole = False
        try:
            connection.carry(run, job.batch.moved)
            whole = True
        except OSError as error:
            self._retry(job, run, error, connection)
        except MooncakeError as error:
            job.batch.failed(run.popleft(), error)
            job.put_back(run)
        finally:
            job.end(connection)
            if whole and not connection.aborted:
                self._keep(connection)
            else:
                connection.close()

    def _retry(self, job: Job, run: deque[Slice], error: OSError, connection: Mover) -> None:
        """Leave ``run`` to another connection, unless its first slice has been tried often enough."""
        # Its siblings lead to the same server, and may have gone with it.
        self._forget_idle()
        piece = run[0]
        if not connection.aborted:
            piece.attempts += 1
            closed = isinstance(error, (ConnectionResetError, BrokenPipeError))
            refused = closed and connection.endpoint.version < LATEST_VERSION
            if refused and piece.attempts > 1:
                run.popleft()
                job.batch.failed(piece, RangeRefused(peer=self.name, address=piece.address, length=piece.length))
            elif piece.attempts > self._settings.retries:
                run.popleft()
                job.batch.failed(piece, self._failure(piece, error))
        job.put_back(run)

    def _failure(self, piece: Slice, error: OSError) -> MooncakeError:
        return TransferFailed(
            peer=self.name,
            address=piece.address,
            length=piece.length,
            attempts=piece.attempts,
            detail=error.strerror or str(error),
            errno=error.errno or 0,
        )

    def _connect(self, job: Job) -> Mover | None:
        """A connection; None when the batch was cancelled meanwhile. Raises what keeps all slices from moving."""
        attempt = 0
        while not job.batch.cancelled:
            with self._work:
                if self._idle:
                    return self._idle.pop()
            try:
                return self._connect_to(self._locate(attempt > 0), self._settings)
            except BlockingIOError:
                job.batch.pause(BACKOFF.first)
                continue
            except (OSError, PeerUnreachable, PeerStalled) as error:
                if attempt >= self._settings.retries:
                    if not isinstance(error, OSError):
                        raise
                    detail = f"{error.strerror or error} (errno {error.errno or 0})"
                    raise PeerUnreachable(peer=self.name, detail=detail, errno=error.errno or 0) from None
            attempt += 1
            job.batch.pause(BACKOFF.after(attempt))
        return None

    def _keep(self, connection: Mover) -> None:
        with self._work:
            if not self._closed and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _forget_idle(self) -> None:
        with self._work:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
