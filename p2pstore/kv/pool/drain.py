"""Draining: the values of segments are moved to others, so that their owners can go without taking any along.

A job is upstream's: it asks for moves, some at a time, which the owners of the segments carry out; nothing new is put
there meanwhile. What is leased, pinned for good or being written stays, and is looked at again. A job ends when nothing
is left, or when all that is left failed too often; then the segments are as before. A restart forgets jobs.
"""

from __future__ import annotations

import enum
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from engine.rpc.codes import Code
from engine.rpc.messages import TaskStatus
from p2pstore.kv.pool.entries import Entry
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.segments import Drain, Mounted
from p2pstore.kv.pool.tasks import FINISHED, Tasks
from p2pstore.kv.pool.walks import STEP_ENTRIES, Everything

MAX_JOBS = 1000
"""Jobs that are remembered; of those that ended the first are forgotten."""

MAX_SEGMENTS = 1000
"""Segments that one job drains, or moves to."""

MAX_CONCURRENCY = 1000
"""Moves of one job at a time."""

CONCURRENCY = 4
"""The same where the job does not say."""

MAX_RETRIES = 3
"""Failures of one value's move after which it is tried no more."""

AGAIN_S = 0.5
"""Between two looks at all values."""


class JobStatus(enum.IntEnum):
    """Upstream's."""

    CREATED = 0
    PLANNING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELED = 5


class JobInfo(NamedTuple):
    """What is told of a job; units are values in a segment. Times are milliseconds since 1970."""

    id: bytes
    status: JobStatus
    created_ms: int
    updated_ms: int
    segments: Sequence[str]
    succeeded: int
    failed: int
    blocked: int
    active: int
    moved_bytes: int
    message: str


class _Unit(NamedTuple):
    """A value in a segment."""

    tenant: str
    key: str
    segment: str


class _Job:
    def __init__(self, name: bytes, segments: Sequence[str], targets: Sequence[str], limit: int, now: float) -> None:
        self.id = name
        self.segments = tuple(segments)
        self.targets = tuple(targets)
        self.limit = limit
        self.created = self.updated = now
        self.status = JobStatus.CREATED
        self.message = "Drain job created"
        self.succeeded = self.failed = self.blocked = self.moved = 0
        self.active: dict[bytes, tuple[_Unit, int]] = {}
        self.moving: set[_Unit] = set()  # those of them
        self.retries: Counter[_Unit] = Counter()
        self.walk: Everything | None = None
        self.next = now
        self.waiting: deque[Entry] = deque()  # of the walk, to be looked at
        self.left: set[str] = set()  # segments in which the walk found something
        self.hopeful = False  # whether anything of that may still be moved
        self.stuck = 0

    @property
    def ended(self) -> bool:
        return self.status >= JobStatus.SUCCEEDED


class Drains:
    """All jobs of one index."""

    def __init__(self, index: Index, tasks: Tasks, new_id: Callable[[], bytes] = lambda: uuid.uuid4().bytes) -> None:
        self._index = index
        self._tasks = tasks
        self._new_id = new_id
        self._jobs: dict[bytes, _Job] = {}

    def create(
        self, segments: Sequence[str], targets: Sequence[str] = (), concurrency: int = CONCURRENCY
    ) -> bytes | Code:
        """Begin to drain segments, by name, into ``targets``, or into any; the job's id."""
        if not 0 < concurrency <= MAX_CONCURRENCY or not 0 < len(segments) <= MAX_SEGMENTS:
            return Code.BAD_PARAMS
        if len(set(segments)) < len(segments) or len(targets) > MAX_SEGMENTS or not set(segments).isdisjoint(targets):
            return Code.BAD_PARAMS
        for name in segments:
            found = list(self._named(name))
            if not found or any(each.status != "OK" for each in (one.described() for one in found)):
                return Code.BAD_STATUS if found else Code.NO_SEGMENT
        for name in targets:
            if not self._index.segments.named(name):
                return Code.BAD_STATUS if any(self._named(name)) else Code.NO_SEGMENT
        if len(self._jobs) >= MAX_JOBS:
            oldest = next((job for job in self._jobs.values() if job.ended), None)
            if oldest is None:
                return Code.TOO_MANY_TASKS
            del self._jobs[oldest.id]
        job = _Job(self._new_id(), segments, targets, concurrency, self._index.clock())
        self._jobs[job.id] = job
        self._mark(job, Drain.DRAINING)
        return job.id

    def query(self, name: bytes) -> JobInfo | Code:
        """How far a job is."""
        job = self._jobs.get(name)
        if job is None:
            return Code.NO_JOB
        return JobInfo(
            job.id, job.status, self._ms(job.created), self._ms(job.updated), job.segments, job.succeeded, job.failed,
            job.blocked, len(job.active), job.moved, job.message,
        )  # fmt: skip

    def cancel(self, name: bytes) -> Code:
        """End a job none of whose moves is under way; what it moved stays where it is."""
        job = self._jobs.get(name)
        if job is None:
            return Code.NO_JOB
        if job.ended or job.active:
            return Code.BAD_STATUS
        self._end(job, JobStatus.CANCELED, "Drain job canceled")
        self._mark(job, Drain.NO)
        return Code.OK

    def tick(self, now: float) -> bool:
        """Go on with all jobs, a step each; tells whether there is more to do at once."""
        more = False
        for job in list(self._jobs.values()):
            if not job.ended:
                self._look_at_tasks(job)
                more = self._step(job, now) or more
        return more

    def due(self) -> float | None:
        """When there is something to do next."""
        return min((job.next for job in self._jobs.values() if not job.ended), default=None)

    # -- one job

    def _look_at_tasks(self, job: _Job) -> None:
        for name, (unit, size) in list(job.active.items()):
            task = self._tasks.query(name)
            if not isinstance(task, Code) and task.status not in FINISHED:
                continue
            del job.active[name]
            job.moving.discard(unit)
            job.updated = self._index.clock()
            if not isinstance(task, Code) and task.status == TaskStatus.SUCCESS:
                job.succeeded += 1
                job.moved += size
            else:
                job.failed += 1
                job.retries[unit] += 1

    def _step(self, job: _Job, now: float) -> bool:
        if job.walk is None:
            if now < job.next:
                return False
            job.walk = Everything(self._index)
            job.left, job.hopeful, job.stuck = set(), False, 0
            job.status, job.message = JobStatus.RUNNING, "Drain job running"
        looked = 0
        while looked < STEP_ENTRIES and len(job.active) < job.limit:
            if not job.waiting:
                if job.walk.ended:
                    self._ends_walk(job, now)
                    return False
                job.waiting.extend(job.walk.step(STEP_ENTRIES))
            else:
                looked += 1
                self._look_at(job, job.waiting.popleft(), now)
        job.next = now if len(job.active) < job.limit else now + AGAIN_S
        return len(job.active) < job.limit

    def _look_at(self, job: _Job, entry: Entry, now: float) -> None:
        for held in entry.memory:
            name = held.segment.name
            if name not in job.segments or held.segment.gone:
                continue
            job.left.add(name)
            unit = _Unit(entry.tenant.name, entry.key, name)
            if job.retries[unit] >= MAX_RETRIES:
                continue
            job.hopeful = True
            if unit in job.moving or len(job.active) >= job.limit:
                continue
            if entry.hard or entry.leased_until > now or self._tasks.busy(entry) or not held.ready:
                job.stuck += 1
                continue
            target = self._target(job, entry)
            code = Code.BUSY if target is None else self._tasks.move(entry.key, name, target, entry.tenant.name)
            if not isinstance(code, Code):
                job.active[code] = unit, entry.size
                job.moving.add(unit)
                job.updated = now
            elif code in {Code.BUSY, Code.BAD_STATUS, Code.HAS_TASK, Code.TOO_MANY_TASKS}:
                job.stuck += 1
            else:
                job.failed += 1
                job.retries[unit] += 1

    def _ends_walk(self, job: _Job, now: float) -> None:
        """All values were looked at: the job is through, or begins again after a while."""
        job.walk = None
        job.next = now + AGAIN_S
        for entry in self._index.writing:
            names = {held.segment.name for held in entry.memory}.intersection(job.segments)
            job.left |= names
            job.stuck += len(names)
            job.hopeful = job.hopeful or bool(names)
        job.blocked = job.stuck
        if job.active:
            return
        for name in set(job.segments) - job.left:
            for segment in self._named(name):
                segment.drain = Drain.DRAINED
        if not job.left:
            self._end(job, JobStatus.SUCCEEDED, "Drain job finished successfully")
        elif not job.hopeful:
            self._end(job, JobStatus.FAILED, "Drain job failed: unrecoverable units remain")
            self._mark(job, Drain.NO)

    def _target(self, job: _Job, entry: Entry) -> str | None:
        """The segment of those that take values, and do not have this one, which is the emptiest."""
        there = {held.segment.name for held in entry.memory}
        free = [
            each
            for each in self._index.segments.open
            if each.name not in there and (not job.targets or each.name in job.targets) and not each.suspected
        ]
        found = min(free, key=lambda each: each.extents.used / max(1, each.extents.capacity), default=None)
        return None if found is None else found.name

    def _end(self, job: _Job, status: JobStatus, message: str) -> None:
        if job.walk is not None:
            job.walk.close()
            job.walk = None
        job.waiting.clear()
        job.status, job.message = status, message
        job.updated = self._index.clock()

    def _mark(self, job: _Job, drain: Drain) -> None:
        for name in job.segments:
            for segment in self._named(name):
                segment.drain = drain
        self._index.segments.reopen()

    def _named(self, name: str) -> Iterator[Mounted]:
        return (each for each in self._index.segments if each.name == name)

    def _ms(self, at: float) -> int:
        return round((at + self._index.settings.epoch) * 1000)
