"""One of several processes of a host that share a get: tells the others what it has brought, and copies what they have.

A thread for each other process hears what that says. One more waits until this process's own copy of a chunk is done,
then offers the chunk to the others, and says now and then that this process is alive. No others wait for one that goes,
or says nothing: they do without it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from engine.cuda.load import Cuda
from engine.cuda.pinned import PinnedBuffer, until_done
from engine.errors import MooncakeError
from engine.net.threads import Threads
from p2pstore.errors import StorageError, UsageError
from p2pstore.sharing.arrivals import COPY_SECONDS, Arrivals
from p2pstore.sharing.ledger import BadNews, Ledger
from p2pstore.sharing.link import Link
from p2pstore.sharing.meeting import Met
from p2pstore.sharing.messages import Kind, Message
from p2pstore.sharing.ring import Ring, Unreadable

PULSE_SECONDS = 1.0
"""So often each says that it is alive."""

SILENT_SECONDS = 20.0
"""Who says nothing for so long is done without: it is stopped, or so busy that it would hold up the others."""

WAIT_SECONDS = 0.1
"""Between two looks whether the wait for the others is still wanted."""

CLOSE_SECONDS = COPY_SECONDS + 10.0
"""For the threads to end: each may wait for a copy."""

log = logging.getLogger(__name__)

Brought = tuple[int, PinnedBuffer, int]
"""A chunk, its buffer, and the event at which this process has copied it."""


class Group:
    """This process's part. Thread-safe; what went wrong in a thread is raised by ``check``."""

    def __init__(
        self, met: Met, ledger: Ledger, view: bytes, ring: Ring, arrivals: Arrivals, cuda: Cuda, device: int
    ) -> None:
        """``view`` is a digest of what this process takes all to want: who has another one is not shared with."""
        self._met = met
        self._ledger = ledger
        self._view = view
        self._ring = ring
        self._arrivals = arrivals
        self._driver = cuda.driver
        self._device = device
        self._changed = threading.Condition()
        self._links = {process: Link(sock) for process, sock in met.links.items()}
        self._lent: dict[int, PinnedBuffer] = {}
        self._told: set[int] = set()  # that nothing of them is read any more
        self._queue: queue.SimpleQueue[Brought | None] = queue.SimpleQueue()
        self._threads = Threads()
        self._ending = False
        self._fault: BaseException | None = None
        self._last_pulse = time.monotonic()

    def start(self) -> None:
        """Begin. Raises ``UsageError`` where the system refuses a thread; it is to be closed all the same."""
        for process in self._links:
            self._send(process, Message(Kind.VIEW, view=self._view))
            if not self._ledger.owed[process]:
                self._tell_closed(process)
        for work in (self._forward, *(lambda p=process: self._hear(p) for process in self._links)):
            if self._threads.start("share", work) is None:
                raise UsageError(detail="cannot start a thread: check the limit of processes (ulimit -u, pids.max)")

    def check(self) -> None:
        """Raise what went wrong in a thread."""
        if self._fault is not None:
            raise self._fault

    def brought(self, chunk: int, buffer: PinnedBuffer, event: int) -> None:
        """A chunk is right in a buffer of this process's, and will be copied once ``event`` is done; both are taken."""
        self._queue.put((chunk, buffer, event))

    def wait(self, check: Callable[[], None]) -> None:
        """Wait until all has come that will, and the others have what they want of this process.

        Raises what ``check`` does, and as ``check`` of this.
        """
        while True:
            check()
            self.check()
            with self._changed:
                if self._ledger.through and self._told.issuperset(self._ledger.here):
                    return
                self._changed.wait(WAIT_SECONDS)

    @property
    def lost(self) -> set[int]:
        """The chunks that others were to bring who have gone."""
        with self._changed:
            return self._ledger.lost

    def close(self) -> None:
        """Go, and let go of everything; the others see it at once."""
        self._ending = True
        self._queue.put(None)
        for link in self._links.values():
            link.close()
        self._threads.stop()
        if not self._threads.join(CLOSE_SECONDS):
            log.error(
                "what processes of this host share is not given back: a copy has not ended for %g s", CLOSE_SECONDS
            )
            return
        while not self._queue.empty():  # what nobody offers any more
            if (item := self._queue.get_nowait()) is not None:
                self._arrivals.forsake([item[2]])
        self._arrivals.close()
        self._ring.close()
        self._met.close()

    # The thread that offers

    def _forward(self) -> None:
        try:
            while True:
                try:
                    item = self._queue.get(timeout=PULSE_SECONDS)
                except queue.Empty:
                    self._pulse()
                    continue
                if item is None:
                    return
                self._offer(*item)
        except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
            self._fail(error)

    def _offer(self, chunk: int, buffer: PinnedBuffer, event: int) -> None:
        if not until_done(self._driver, self._device, event, time.monotonic() + COPY_SECONDS, self._pulse):
            self._arrivals.forsake([event])
            detail = f"a copy has not ended for {COPY_SECONDS:g} s; the stream that it waits for is still busy"
            raise StorageError(path=f"memory of GPU {self._device}", detail=detail)
        with self._changed:
            readers = [] if self._ending else self._ledger.hand(chunk)
            if readers:
                self._lent[chunk] = buffer
        if not readers:
            self._ring.give(buffer)
        for process in readers:
            self._send(process, Message(Kind.OFFERED, chunk, self._ring.number_of(buffer)))
        self._pulse()

    def _pulse(self) -> None:
        """Say that this process is alive, if it is time to."""
        now = time.monotonic()
        if now - self._last_pulse >= PULSE_SECONDS:
            self._last_pulse = now
            for process in self._here():
                self._send(process, Message(Kind.PULSE))

    # The threads that hear

    def _hear(self, process: int) -> None:
        last = time.monotonic()
        try:
            while not self._ending and process in self._here():
                said = self._links[process].hear(PULSE_SECONDS)
                if said is None:
                    self._leave(process, "has ended")
                    break
                offered = [message for message in said if message.kind is Kind.OFFERED]
                for message in said:
                    self._take(process, message)
                if process in self._here():  # its view may have been another one
                    self._copy(process, offered)
                if said:
                    last = time.monotonic()
                elif time.monotonic() - last > SILENT_SECONDS:
                    self._leave(process, f"has said nothing for {SILENT_SECONDS:g} s")
        except (BadNews, ValueError, Unreadable) as error:
            why = "has what this one's GPU cannot read" if isinstance(error, Unreadable) else "says what cannot be"
            self._leave(process, f"{why} ({error})")
        except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
            self._fail(error)
            self._leave(process, "")
        else:  # after a fault copies from it may be under way: it is closed with the rest, behind them
            self._arrivals.forget(process)

    def _take(self, process: int, message: Message) -> None:
        """Do what a message is for. Raises ``BadNews``."""
        kind, chunk = message.kind, message.chunk
        if kind is Kind.VIEW and message.view != self._view:
            self._leave(process, "loads other tensors, or other slices of them")
        elif kind is Kind.COPIED:
            self._read_by(process, chunk)
        elif kind is Kind.COUNTS:
            with self._changed:
                last = self._ledger.counts(process, chunk)
            if last:
                self._tell_closed(process)
        elif kind is Kind.CLOSED:
            with self._changed:
                self._ledger.close(process)
                self._changed.notify_all()

    def _copy(self, process: int, offered: Sequence[Message]) -> None:
        """Copy chunks that another has brought, several at a time where there are: the next while one is waited for."""
        begun: list[tuple[int, list[int]]] = []
        try:
            for message in offered:
                with self._changed:
                    self._ledger.offered(process, message.chunk)
                begun.append((message.chunk, self._arrivals.begin(process, message.chunk, message.number)))
            while begun:
                chunk, events = begun.pop(0)
                self._arrivals.finish(events, self._stop)
                self._send(process, Message(Kind.COPIED, chunk))
        finally:
            for _, events in begun:
                self._arrivals.forsake(events)

    def _read_by(self, process: int, chunk: int) -> None:
        with self._changed:
            if process in self._ledger.gone:  # its buffer may have another chunk by now
                return
            free = self._lent.pop(chunk) if self._ledger.copied(process, chunk) else None
        if free is not None:
            self._ring.give(free)
        self._send(process, Message(Kind.COUNTS, chunk))

    def _tell_closed(self, process: int) -> None:
        self._arrivals.forget(process)
        self._send(process, Message(Kind.CLOSED))
        with self._changed:
            self._told.add(process)
            self._changed.notify_all()

    def _stop(self) -> None:
        """A check for waits, which are for what is soon over: nothing ends them."""

    # Both

    def _here(self) -> list[int]:
        with self._changed:
            return self._ledger.here

    def _send(self, process: int, message: Message) -> None:
        if process not in self._ledger.gone:
            self._links[process].say(message)

    def _leave(self, process: int, why: str) -> None:
        """Do without another from now on; ``why`` is told where it still owed something."""
        with self._changed:
            if process in self._ledger.gone:
                return
            owed = 0 if self._ending else len(self._ledger.owed[process])  # whoever waits may end all of it at once
            free = [self._lent.pop(chunk) for chunk in self._ledger.leave(process)]
            self._changed.notify_all()
        for buffer in free:
            self._ring.give(buffer)
        self._links[process].close()
        if why and owed:
            rank = self._met.members[process]["rank"]
            log.warning("rank %s of this host %s: this one brings what was to come from it, %d chunks", rank, why, owed)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, MooncakeError):
            self._threads.note("share", error)
        with self._changed:
            self._fault = self._fault or error
            self._changed.notify_all()
