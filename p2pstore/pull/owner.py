"""The pull, which owns its planner.

Whatever happens (a source found, chunks arrived, a channel broke) is put into one mailbox, by methods that do not wait.
Who has the mailbox's turn takes it from there, tells the planner, and hands out what the planner says: runs to the
queues of the workers (``p2pstore.pull.crew``), questions and news to whoever made the pull. That is the pull's thread,
and for what each chunk brings (a grant, an arrival) the thread that brings it, since to wake another costs more than
planning. Without a turn nobody touches the planner; what others may want to know of it is published at its end.

Telling a source's workers to stop is two steps: they are *closed* at once, and what they still write is *released*
when they report that they have left it. Until then nobody else is asked for it, and nobody waits: a write that hangs
costs its own chunks, for as long as it hangs. ``quiet`` is done when the pull is over and nothing is written any more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import MooncakeError, StorageError, UsageError
from p2pstore.objects.repeats import Repeats
from p2pstore.pull.crew import Crew, join, start
from p2pstore.pull.destination import Destination
from p2pstore.pull.fault_sorter import FaultSorter
from p2pstore.pull.mailbox import Mailbox
from p2pstore.pull.task_queue import Task
from p2pstore.pull.tuning import Tuning
from p2pstore.pull.workers import Arrived, Broke, Left, Nearing, Report, Source, Worker, WorkerContext
from p2pstore.swarm.events import (
    Action,
    Cancel,
    Claims,
    Closed,
    Drop,
    Ending,
    Event,
    Failed,
    Fetch,
    Fetched,
    FetchFault,
    Granted,
    PeerAdded,
    PeerClaims,
    PeerHas,
    PeerShared,
    Released,
    Tick,
    Word,
)
from p2pstore.swarm.gateway import Claim, Gateways
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.planner import Planner

if TYPE_CHECKING:
    from engine.net.rate import RateLimit
    from engine.transports.base import Channel, PeerAddress
    from p2pstore.objects.bitmap import Bitmap

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
"""How often the planner is told the time."""

MAX_BATCH = 64
"""Messages that are taken before what they came to is published."""

MAX_BACKLOG = 4096
"""Messages in the mailbox above which the pull is ``behind``: nobody should add news of sources."""

RELEASE_SECONDS = 30.0
"""How long the last write of a source that was given up may take, once there is nothing to do but wait for it."""

MAX_LEAVING = 64
"""Workers of sources that were given up whose writes have not ended: with more, the destination counts as broken."""


@dataclass(frozen=True)
class _Add:
    source: Source
    have: Bitmap
    distance: int
    shared: bool
    grants: bool


@dataclass(frozen=True)
class _Remove:
    node: str


class _End:
    """The pull is over."""


_Message = _Add | _Remove | _End | PeerHas | PeerShared | PeerClaims | Granted | Arrived | Nearing | Broke | Left


@dataclass(slots=True)
class _Standing:
    """How a pull stands, as its thread last said, which alone writes it; each field is read by itself."""

    done: bool
    stuck: bool
    active: int
    bytes_pulled: int
    received: int = 0
    storing: bool = False
    asked: tuple[str, ...] = ()


class Pull:
    """One pull of one object into one destination. Its methods may be called from any thread, and do not block."""

    def __init__(
        self,
        destination: Destination,
        had: Bitmap,
        *,
        open_channel: Callable[[PeerAddress, str], Channel],
        tuning: Tuning,
        limit: RateLimit,
        on_progress: Callable[[], None],
        on_chunks: Callable[[range], None],
        on_word: Callable[[Word], None],
        on_drop: Callable[[str, bool], None],
        on_wrong: Callable[[str, int], None],
        note: Callable[[str], None],
        repeats: Repeats | None = None,
        gateways: Gateways | None = None,
        on_claim: Callable[[Claim], None] = lambda _: None,
    ) -> None:
        """``had`` is what the destination has, and is kept up to date. What ``repeats`` another chunk is not asked for.

        ``tuning`` says how many workers each source gets.

        ``gateways`` are those of this node's zone, if it is in one; ``on_claim`` is called with what those who get from
        this node are to be told of them.

        ``on_progress`` is called when the pull may have ended, ``on_chunks`` with verified runs that ``had`` holds by
        then, ``on_word`` with what is to be said to a source that grants, ``on_drop`` when a source is given up,
        ``on_wrong`` when one sent wrong bytes for a chunk, ``note`` with a line for the user: each in any thread, one
        after the other. Raises ``UsageError`` where the system refuses that thread.
        """
        self.manifest = destination.manifest
        self.error: MooncakeError | None = None
        self.quiet: Future[None] = Future()
        """Done when the pull is over and nobody writes to the destination any more. It cannot be cancelled."""
        self.quiet.set_running_or_notify_cancel()
        self._on_progress = on_progress
        self._on_chunks = on_chunks
        self._on_word = on_word
        self._on_claim = on_claim
        self._on_drop = on_drop
        self._had = had
        self._mail: Mailbox[_Message] = Mailbox()
        self._crew = Crew(WorkerContext(destination, open_channel, limit, self._post), tuning)
        planned = repeats.planned(had) if repeats else had
        self._planner = Planner(self.manifest.lengths, planned, gateways=gateways, files=self._crew.files)
        self._only_writes_since: float | None = None
        self._sorter = FaultSorter(on_wrong, note, self._fail)
        self._bytes_by_node: dict[str, int] = {}
        self._bytes_by_transport: dict[str, int] = {}
        self._bytes_pulled = 0
        self._over = False
        self._standing = _Standing(done=self._planner.done, stuck=self._planner.stuck, active=0, bytes_pulled=0)
        self._thread = threading.Thread(target=self._run, name="pull", daemon=True)
        start(self._thread)

    @property
    def finished(self) -> bool:
        """Whether every chunk is there, or an error of our own ended it."""
        return self._standing.done or self.error is not None

    @property
    def stuck(self) -> bool:
        """Whether no known source has what is missing."""
        return self._standing.stuck

    @property
    def active(self) -> int:
        """Sources that are being fetched from, as of the last tick."""
        return self._standing.active

    @property
    def last_fault(self) -> MooncakeError | None:
        """The latest fault of a source that has sent nothing right since; wrong bytes are never forgotten."""
        return self._sorter.faults.last

    def fault_of(self, node: str) -> MooncakeError | None:
        """The same of one source."""
        return self._sorter.faults.of(node)

    @property
    def behind(self) -> bool:
        """Whether there are more messages than the pull's thread keeps up with."""
        return len(self._mail) > MAX_BACKLOG

    @property
    def bytes_pulled(self) -> int:
        """Verified bytes that came from sources."""
        return self._standing.bytes_pulled

    @property
    def received(self) -> int:
        """Bytes that came from sources, verified or not, as of the last tick."""
        return self._standing.received

    @property
    def storing(self) -> bool:
        """Whether a worker was at work at the destination at the last tick, rather than at its channel."""
        return self._standing.storing

    @property
    def asked(self) -> tuple[str, ...]:
        """Who is asked for bytes, as of the last tick: the source, its address and the transport, for people."""
        return self._standing.asked

    @property
    def bytes_by_node(self) -> dict[str, int]:
        """Verified bytes by the source that they came from."""
        return self._bytes_by_node.copy()

    @property
    def bytes_by_transport(self) -> dict[str, int]:
        """Verified bytes by the transport that they came over."""
        return self._bytes_by_transport.copy()

    def add(
        self,
        source: Source,
        have: Bitmap,
        distance: int,
        *,
        shared: bool = False,
        grants: bool = False,
    ) -> None:
        """A source was found, or found again (perhaps at another address). The rest is as in ``PeerAdded``."""
        self._mail.put(_Add(source, have, distance, shared, grants))

    def has(self, node: str, chunks: Sequence[int], *, grants: bool = False) -> None:
        """A source has more chunks. Of one that ``grants`` nothing is fetched for that, so the pull need not wake."""
        (self._mail.leave if grants else self._mail.put)(PeerHas(node, chunks))

    def shared(self, node: str, shared: bool) -> None:  # noqa: FBT001 - what it is about
        """Others get from a source, too, or no longer do."""
        self._mail.put(PeerShared(node, shared))

    def claims(self, node: str, claim: Claim) -> None:
        """A source says who it takes for a gateway of its zone."""
        self._mail.put(PeerClaims(node, claim))

    def granted(self, grant: Grant) -> None:
        """A source, whose node is the ``key``, grants a fetch; what is said to that goes to ``on_word``."""
        self._mail.bring(Granted(grant, time.monotonic()), self._work_off)

    def remove(self, node: str) -> None:
        """A source is gone."""
        self._mail.put(_Remove(node))

    def stop(self) -> None:
        """Tell every worker to stop; ``quiet`` says when nothing is written any more. Twice is harmless."""
        self._mail.put(_End())

    def close(self, timeout: float = 10.0) -> bool:
        """Stop, and wait until every thread has ended, for ``timeout`` seconds at most; whether they have."""
        self.stop()
        deadline = time.monotonic() + timeout
        # Its own thread first: until it has ended it may begin workers of a source that was added just now.
        return all([join([self._thread], deadline), join(self._crew.threads, deadline)])

    def _post(self, report: Report) -> None:
        """A worker reports; to what each chunk brings it sees by itself."""
        if isinstance(report, (Arrived, Nearing)):
            self._mail.bring(report, self._work_off)
        else:
            self._mail.put(report)

    # What follows runs in a turn: in the pull's thread, or in that of who brings a message

    def _run(self) -> None:
        """Take messages until the pull is over and every worker has ended."""
        ticked = time.monotonic()
        while not (self._over and self._crew.over):
            self._mail.wait(ticked + TICK_SECONDS - time.monotonic())
            with self._mail.turn:
                now = time.monotonic()
                due = now - ticked >= TICK_SECONDS
                ticked = now if due else ticked
                self._work_off(now if due else None)

    def _work_off(self, now: float | None = None) -> None:
        """Take messages, and then tick where a time is given."""
        try:
            for _ in range(MAX_BATCH):
                message = self._mail.take()
                if message is None:
                    break
                self._take(message)
            if now is not None:
                self._tick(now)
            self._publish()
        except Exception as error:
            log.exception("a pull failed")
            self._end(MooncakeError(detail=f"the pull failed: {error!r}"))

    def _publish(self) -> None:
        """Say how the pull stands, and at its end that nobody writes any more."""
        planner, standing = self._planner, self._standing
        standing.bytes_pulled = self._bytes_pulled  # before it counts as done
        if self._over:
            if not self._crew.leaving and not self.quiet.done():
                # They may hold what was filled, and know this.
                self._on_chunks, self._on_claim = (lambda _: None), (lambda _: None)
                self.quiet.set_result(None)
            return
        standing.stuck = planner.stuck
        if planner.done and not standing.done:
            standing.done, standing.active = True, planner.active
            self._progress()

    def _take(self, message: _Message) -> None:
        if isinstance(message, (PeerHas, Granted, PeerShared, PeerClaims)):  # the commonest first
            self._tell(message)
        elif isinstance(message, Arrived):
            self._arrived(message)
        elif isinstance(message, Nearing):
            if not message.worker.member.closed:
                self._tell(Ending(message.worker.member.source.node, message.run, message.now))
        elif isinstance(message, Broke):
            self._broke(message)
        elif isinstance(message, Left):
            self._left(message)
        elif isinstance(message, _End):
            self._end(None)
        elif self._over:
            return
        elif isinstance(message, _Add):
            self._add(message)
        else:
            self._close(message.node)

    def _tell(self, event: Event) -> None:
        """Hand an event to the planner and carry out what it says."""
        if not self._over:
            for action in self._planner.handle(event):
                self._act(action)

    def _act(self, action: Action) -> None:
        if isinstance(action, Fetch):
            self._crew.members[action.peer].tasks.put(Task(action.run, action.lead))
        elif isinstance(action, Cancel):
            if self._crew.members[action.peer].cancel(action.run):
                self._tell(Failed(action.peer, action.run, FetchFault.SLOW, time.monotonic()))
        elif isinstance(action, Drop):
            self._close(action.peer)
            self._on_drop(action.peer, action.banned)
        elif isinstance(action, Claims):
            self._on_claim(action.claim)
        else:
            self._on_word(action)

    def _tick(self, now: float) -> None:
        self._tell(Tick(now))
        standing = self._standing
        standing.active = self._planner.active
        standing.received, standing.storing, standing.asked = self._crew.received, self._crew.storing, self._crew.asked
        if self._over or not self._planner.only_writes:
            self._only_writes_since = None
        elif self._only_writes_since is None:
            self._only_writes_since = now
        elif now - self._only_writes_since > RELEASE_SECONDS:
            self._write_hangs(f"a write has not ended for {RELEASE_SECONDS:g} s")

    def _write_hangs(self, detail: str) -> None:
        self._fail(StorageError(path="the destination", detail=detail))

    def _fail(self, error: MooncakeError) -> None:
        """An error of our own ends the pull, as soon as whoever made it hears of it."""
        self.error = self.error or error
        self._progress()

    def _progress(self) -> None:
        try:
            self._on_progress()
        except Exception:  # whoever made the pull is gone: an event loop that was closed
            log.exception("nobody hears that a pull has ended")

    def _end(self, error: MooncakeError | None) -> None:
        """The pull is over: let every worker leave."""
        self._over = True
        for node in list(self._crew.members):
            self._close(node)
        if error is not None:
            self._fail(error)

    # Sources

    def _add(self, message: _Add) -> None:
        source = message.source
        known = self._crew.members.get(source.node)
        if known is not None and known.source != source:
            self._close(source.node)
            known = None
        if source.node in self._planner.banned:
            return
        if known is None:
            if self._crew.leaving > MAX_LEAVING:
                self._write_hangs(f"{self._crew.leaving} writes have not ended")
                return
            try:
                self._crew.begin(source)
            except UsageError as error:
                self._fail(error)
        workers = len(self._crew.members[source.node].workers)
        self._tell(PeerAdded(source.node, message.have, message.distance, message.shared, message.grants, workers))

    def _close(self, node: str) -> None:
        """Tell a source's workers to stop, whatever they wait for, and the planner what they may still write."""
        writing = self._crew.close(node)
        if writing is not None:
            self._tell(Closed(node, writing))

    # Reports of workers

    def _arrived(self, report: Arrived) -> None:
        worker, run = report.worker, report.run
        worker.writing.remove(run)
        if worker.member.closed and not self._crew.let_go(worker, run):
            return
        node = worker.member.source.node
        if node not in self._planner.banned:
            self._sorter.faults.clear(node)
        self._tell(Fetched(node, run, report.now))
        self._spread(worker, run, report.length)

    def _broke(self, report: Broke) -> None:
        worker, kept = report.worker, report.kept
        member = worker.member
        for run in report.runs:
            if run in worker.writing:
                worker.writing.remove(run)
        if member.closed:
            self._sorter.sort_late(report)
            for run in report.runs:
                self._release(worker, run, kept)
                kept = 0
            return
        fault = self._sorter.sort(report)
        for run in report.runs:
            if not member.closed:  # by the first of them
                self._tell(Failed(member.source.node, run, fault, report.now, kept))
                self._spread_kept(worker, run, kept)
            fault, kept = FetchFault.UNTRIED, 0

    def _release(self, worker: Worker, run: range, kept: int) -> None:
        """A closed worker has left a run."""
        if self._crew.let_go(worker, run):
            self._tell(Released(worker.member.source.node, run, kept))
            self._spread_kept(worker, run, kept)

    def _left(self, report: Left) -> None:
        worker = report.worker
        for run in self._crew.left(worker):
            self._release(worker, run, 0)
        if report.error is not None or not worker.member.closed:
            log.error("a worker of a pull failed", exc_info=report.error)
            self._fail(MooncakeError(detail=f"a worker of the pull failed: {report.error!r}"))

    def _spread_kept(self, worker: Worker, run: range, kept: int) -> None:
        """Of a run that broke so many chunks arrived."""
        if kept:
            self._spread(worker, run[:kept], sum(self.manifest.lengths[c] for c in run[:kept]))

    def _spread(self, worker: Worker, run: range, length: int) -> None:
        """So many verified bytes came from a worker; ``had`` holds them by now, so that a peer may ask at once."""
        self._bytes_pulled += length
        keys = ((self._bytes_by_node, worker.member.source.node), (self._bytes_by_transport, worker.transport))
        for counted, key in keys:
            counted[key] = counted.get(key, 0) + length
        if not self._over:
            self._had.update(run)
            self._on_chunks(run)
