"""Lanes: the connections to one peer, the threads that work on them, and what happens to a slice that fails.

Work waits in jobs, one for each batch and peer. A lane takes a few slices of one job at a time, so that small requests
are pipelined and large ones spread over all lanes. The thread that waits for a synchronous transfer is a lane too.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from engine.errors import MooncakeError, PeerStalled, PeerUnreachable, RangeRefused, TransferFailed
from engine.net.backoff import Backoff
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

log = logging.getLogger(__name__)
_NUMBERS = itertools.count(1)


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

    def __len__(self) -> int:
        return len(self._slices)

    def take(self) -> deque[Slice]:
        """The next slices of one opcode for one lane; empty when none are left."""
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
        for piece in dropped:
            self.batch.skipped(piece)
        return run

    def put_back(self, run: deque[Slice]) -> None:
        """Give slices back that were not moved."""
        with self._lock:
            self._slices.extendleft(reversed(run))

    def fail_all(self, error: MooncakeError) -> None:
        """Give up whatever no lane has taken."""
        with self._lock:
            left = list(self._slices)
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
        self._at_once: set[Mover] = set()
        self._threads: set[threading.Thread] = set()
        self._waiting = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Work on ``job`` in the background."""
        self._offer(job, job.lanes)

    def run(self, job: Job) -> None:
        """Work on ``job`` in this thread, and in others where there is enough to do."""
        if job.lanes > 1:
            self._offer(job, job.lanes - 1)
        self._carry_out(job)

    def run_at_once(self, piece: Slice) -> bool:
        """Move one slice over a connection that is open already, in this thread and without a job.

        A small transfer spends most of its time on its own bookkeeping. False where no connection is idle, or where
        this one failed: then nothing is known of the slice, and a job should move it. Raises as ``Connection.carry``,
        ``OSError`` excepted.
        """
        with self._work:
            if not self._idle:
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
            if not kept:
                connection.close()
        return whole

    def close(self) -> None:
        """End the lanes and close the connections; jobs under way fail."""
        with self._work:
            self._closed = True
            jobs = list(self._jobs)
            for connection in self._at_once:
                connection.abort()
            self._work.notify_all()
            threads = list(self._threads)
        for job in jobs:
            job.batch.cancel()
        self._forget_idle()
        for thread in threads:
            thread.join(CLOSE_TIMEOUT)

    def _offer(self, job: Job, lanes: int) -> None:
        with self._work:
            if self._closed:
                raise PeerUnreachable(peer=self.name, detail="the engine was closed")
            self._jobs.append(job)
            for _ in range(min(lanes - self._waiting, self._settings.lanes - len(self._threads))):
                thread = threading.Thread(target=self._lane, name=f"lane:{next(_NUMBERS)}", daemon=True)
                self._threads.add(thread)
                thread.start()
            self._work.notify(lanes)

    def _lane(self) -> None:
        me = threading.current_thread()
        while True:
            with self._work:
                self._waiting += 1
                found = self._work.wait_for(lambda: self._closed or self._next() is not None, IDLE_SECONDS)
                self._waiting -= 1
                job = self._next()
                if not found or job is None:
                    self._threads.discard(me)
                    return
            try:
                self._carry_out(job)
            except Exception as error:
                log.exception("a lane to %s failed", self.name)
                job.fail_all(PeerUnreachable(peer=self.name, detail=str(error)))

    def _next(self) -> Job | None:
        """The job whose turn it is; the lock is held."""
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            if len(job):
                self._jobs.append(job)
                return job
        return None

    def _carry_out(self, job: Job) -> None:
        while run := job.take():
            try:
                connection = self._connect(job)
            except MooncakeError as error:
                job.put_back(run)
                job.fail_all(error)
                return
            if connection is None:
                job.put_back(run)
                continue
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
