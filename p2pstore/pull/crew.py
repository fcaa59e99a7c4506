"""The workers of a pull: whose threads run, and what those that were told to stop may still write.

All methods are called by who has the turn in the pull, one after the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from engine.errors import UsageError
from p2pstore.pull.tuning import Place, Tuning
from p2pstore.pull.workers import Member, Source, Worker, WorkerContext
from p2pstore.swarm.files import NO_FILES, Files

log = logging.getLogger(__name__)


class Crew:
    """The sources that are fetched from, by node, and the threads that do it."""

    def __init__(self, job: WorkerContext, tuning: Tuning) -> None:
        """``tuning`` says how many workers each source gets."""
        self.members: dict[str, Member] = {}
        self.threads: list[threading.Thread] = []
        self._job = job
        self._tuning = tuning
        destination = job.destination
        several = destination.lands_in is Place.FILES
        self.files = Files(destination.manifest.first_chunks[:-1]) if several else NO_FILES
        """The object's, where several are written to, and several at once are better."""
        self._workers: set[Worker] = set()  # whose threads have not ended
        self._leaving: dict[Worker, list[range]] = {}  # what those that were closed may still write
        self._received_before = 0  # by workers that have left

    @property
    def over(self) -> bool:
        """Whether every worker has ended."""
        return not self._workers

    @property
    def leaving(self) -> int:
        """Workers that were told to stop, and may still write."""
        return len(self._leaving)

    @property
    def received(self) -> int:
        """Bytes that came from sources, verified or not."""
        return self._received_before + sum(worker.came for worker in self._workers)

    @property
    def storing(self) -> bool:
        """Whether a worker is at work at the destination, rather than at its channel."""
        return any(worker.storing for worker in self._workers)

    @property
    def asked(self) -> tuple[str, ...]:
        """Who is asked for bytes: the source, its address and the transport, for people."""
        return tuple(member.shown for member in self.members.values() if any(w.pending for w in member.workers))

    def begin(self, source: Source) -> None:
        """Start the workers of a source. Raises ``UsageError`` where the system refuses even the first."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        others = sum(len(member.workers) for member in self.members.values())  # those of closed ones leave
        member = self.members[source.node] = Member(source, self.files)
        for number in range(self._tuning.workers(others)):
            worker = Worker(self._job, member, self._tuning.piece_bytes(others))
            thread = threading.Thread(target=worker.run, name=f"pull-{source.node}-{number}", daemon=True)
            try:
                start(thread)
            except UsageError as error:
                log.warning("%s", error)
                if not member.workers:
                    raise
                return
            self.threads.append(thread)
            self._workers.add(worker)
            member.workers.append(worker)

    def close(self, node: str) -> list[range] | None:
        """Tell a source's workers to stop, whatever they wait for: what they may still write; None without a source."""
        member = self.members.pop(node, None)
        if member is None:
            return None
        writing: list[range] = []
        for worker, runs in member.close():
            self._leaving[worker] = runs
            writing += runs
        return writing

    def let_go(self, worker: Worker, run: range) -> bool:
        """Whether a closed worker held a run until now; it is no longer written."""
        runs = self._leaving.get(worker, [])
        if run not in runs:
            return False
        runs.remove(run)
        if not runs:
            del self._leaving[worker]
        return True

    def left(self, worker: Worker) -> list[range]:
        """A worker's thread has ended: the runs that it held until now, each of which is to be let go."""
        self._workers.discard(worker)
        self._received_before += worker.came
        return self._leaving.get(worker, []).copy()


def start(thread: threading.Thread) -> None:
    """Start a thread. Raises ``UsageError`` where the system refuses it."""
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        detail = f"cannot start the thread {thread.name!r}: check the limit of processes (ulimit -u, pids.max)"
        raise UsageError(detail=detail) from None


def join(threads: Iterable[threading.Thread], deadline: float) -> bool:
    """Wait until all of them have ended, by ``deadline`` of the monotonic clock; whether they have."""
    ended = True
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            log.warning("%s did not end in time", thread.name)
            ended = False
    return ended
