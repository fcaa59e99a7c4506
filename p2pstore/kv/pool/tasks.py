"""Copies and moves of replicas: who is asked to carry one out, and what it does step by step.

A task is asked for by anybody, waits for the client that has the source, and is fetched by it. That client then starts
the copy or move of the key, writes, and ends it; or it starts one without a task. The source stays meanwhile, and what
is written to cannot be read before the end.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from engine.rpc.codes import Code
from engine.rpc.messages import (
    DEFAULT_TENANT,
    CopyPlan,
    MovePlan,
    Task,
    TaskAssignment,
    TaskDone,
    TaskStatus,
    TaskType,
)
from p2pstore.kv.pool.entries import Entry, Held
from p2pstore.kv.pool.index import Index, keep_for_readers
from p2pstore.kv.pool.settings import MAX_TASKS, TASK_RETRIES, TASK_TIMEOUT_S
from p2pstore.kv.pool.tenants import room_in

_T = TypeVar("_T")

FINISHED = frozenset({TaskStatus.FAILED, TaskStatus.SUCCESS})

MAX_MESSAGE = 1024
"""Characters of what a client says of a task's end."""

MAX_TARGETS = 64
"""Segments that one copy goes to."""


class _Known:
    """A task, with what whoever asks is told of it. Its times are of the pool's clock."""

    __slots__ = ("client", "created", "id", "kind", "message", "payload", "status", "updated")

    def __init__(self, name: bytes, kind: int, client: bytes, payload: str, now: float) -> None:
        self.id = name
        self.kind = kind
        self.client = client
        self.payload = payload
        self.created = self.updated = now
        self.status = TaskStatus.PENDING
        self.message = ""


class _Running:
    """A copy or move under way."""

    __slots__ = ("client", "kind", "source", "started", "targets")

    def __init__(self, kind: int, client: bytes, source: Held, targets: list[Held], started: float) -> None:
        self.kind = kind
        self.client = client
        self.source = source
        self.targets = targets
        self.started = started


class Tasks:
    """All tasks of one index."""

    def __init__(self, index: Index, new_id: Callable[[], bytes] = lambda: uuid.uuid4().bytes) -> None:
        self._index = index
        self._new_id = new_id
        self._known: dict[bytes, _Known] = {}
        self._pending: dict[bytes, deque[_Known]] = {}
        self._waiting = 0
        self._fetched: dict[bytes, _Known] = {}
        self._finished: deque[bytes] = deque()
        self._running: dict[Entry, _Running] = {}

    def busy(self, entry: Entry) -> bool:
        """Whether a replica of that value is being copied or moved."""
        return entry in self._running

    # -- tasks, as they are asked for

    def copy(self, key: str, targets: Sequence[str], tenant: str = DEFAULT_TENANT) -> bytes | Code:
        """Ask for copies in these segments; the task's id."""
        entry = self._entry(key, tenant)
        if not 0 < len(targets) <= MAX_TARGETS:
            return Code.BAD_PARAMS
        if entry is None:
            return Code.NOT_FOUND
        bad = next((code for code in map(self._target, targets) if code is not Code.OK), None)
        if bad is not None:
            return Code.BAD_PARAMS if bad is Code.NO_SEGMENT else bad
        source = next((held for held in entry.memory if held.readable), None)
        if source is None:
            return Code.NO_REPLICA
        said = {"tenant_id": entry.tenant.name, "key": key, "source": source.segment.name, "targets": list(targets)}
        return self._ask(TaskType.COPY, source, said)

    def move(self, key: str, source: str, target: str, tenant: str = DEFAULT_TENANT) -> bytes | Code:
        """Ask for a move from one segment to another; the task's id."""
        entry = self._entry(key, tenant)
        if entry is None:
            return Code.NOT_FOUND
        code = self._target(target)
        held = self._held_in(entry, source)
        if source == target or code is Code.NO_SEGMENT or held is None:
            return Code.BAD_PARAMS
        if code is not Code.OK:
            return code
        said = {"tenant_id": entry.tenant.name, "key": key, "source": source, "target": target}
        return self._ask(TaskType.MOVE, held, said)

    def fetch(self, client: bytes, count: int) -> list[TaskAssignment]:
        """What a client is to do next, ``count`` at most."""
        waiting = self._pending.get(client)
        found: list[TaskAssignment] = []
        while waiting and len(found) < count and len(self._fetched) < MAX_TASKS:
            task = waiting.popleft()
            if task.status is not TaskStatus.PENDING:
                continue
            self._waiting -= 1
            task.status = TaskStatus.PROCESSING
            task.updated = self._index.clock()
            self._fetched[task.id] = task
            found.append(TaskAssignment(task.id, task.kind, task.payload, self._ms(task.created), TASK_RETRIES))
        if waiting is not None and not waiting:
            del self._pending[client]
        return found

    def query(self, name: bytes) -> Task | Code:
        """How far a task is."""
        task = self._known.get(name)
        if task is None:
            return Code.NO_TASK
        created, updated = self._ms(task.created), self._ms(task.updated)
        return Task(task.id, task.kind, task.status, created, updated, task.client, task.message)

    def done(self, client: bytes, done: TaskDone) -> Code:
        """A client says what became of a task."""
        task = self._known.get(done.id)
        if done.status not in FINISHED:
            return Code.BAD_PARAMS
        if task is None:
            return Code.NO_TASK
        if task.client != client:
            return Code.ILLEGAL_CLIENT
        if task.status not in FINISHED:
            self._finish(task, TaskStatus(done.status), done.message)
        return Code.OK

    # -- copies and moves, step by step

    def copy_start(
        self, client: bytes, key: str, source: str, targets: Sequence[str], tenant: str = DEFAULT_TENANT
    ) -> CopyPlan | Code:
        """Where to copy a value from and to; segments that have it already are left out."""
        found = self._startable(key, source, targets, tenant)
        if isinstance(found, Code):
            return found
        entry, held = found
        there = {each.segment.name for each in entry.memory}
        names = [name for name in dict.fromkeys(targets) if name not in there]
        made = self._places(entry, names)
        if isinstance(made, Code):
            return made
        self._run(TaskType.COPY, client, entry, held, made)
        return CopyPlan(held.described(entry.size), [each.described(entry.size) for each in made])

    def move_start(
        self, client: bytes, key: str, source: str, target: str, tenant: str = DEFAULT_TENANT
    ) -> MovePlan | Code:
        """Where to move a value from and to; without a target it is there already."""
        if source == target:
            return Code.BAD_PARAMS
        found = self._startable(key, source, [target], tenant)
        if isinstance(found, Code):
            return found
        entry, held = found
        made = self._places(entry, [] if self._held_in(entry, target) else [target])
        if isinstance(made, Code):
            return made
        self._run(TaskType.MOVE, client, entry, held, made)
        return MovePlan(held.described(entry.size), made[0].described(entry.size) if made else None)

    def end(self, client: bytes, key: str, tenant: str, kind: int) -> Code:
        """It was written: the copies can be read, and what was moved is gone from where it was."""
        found = self._started(client, key, tenant, kind)
        if isinstance(found, Code):
            return found
        entry, running = found
        index = self._index
        targets = [held for held in running.targets if held.segment.alive]
        self._stop(entry)
        if not running.source.readable or len(targets) < len(running.targets):
            index.without(entry, running.targets)
            return Code.REPLICA_GONE
        if targets:
            index.whole(entry, targets)
        if kind == TaskType.MOVE:
            read_by_others = index.clock() + index.settings.put_release if running.source.holds else 0.0
            index.without(entry, [running.source], keep_until=read_by_others or keep_for_readers(index, entry))
        return Code.OK

    def revoke(self, client: bytes, key: str, tenant: str, kind: int) -> Code:
        """It was not written, and will not be."""
        found = self._started(client, key, tenant, kind)
        if isinstance(found, Code):
            return found
        entry, running = found
        self._stop(entry)
        self._index.without(entry, running.targets)
        return Code.OK

    # -- time, and what goes

    def tick(self, now: float) -> None:
        """Give up what nobody fetched or ended."""
        for entry, running in list(self._running.items()):
            if running.started + self._index.settings.put_release > now:
                break
            self._stop(entry)
            self._index.without(entry, running.targets)
        for task in list(self._fetched.values()):
            if task.updated + TASK_TIMEOUT_S > now:
                break
            self._finish(task, TaskStatus.FAILED, "nobody ended it in time")
        for client, waiting in list(self._pending.items()):
            while waiting and waiting[0].created + TASK_TIMEOUT_S <= now:
                task = waiting.popleft()
                self._waiting -= 1
                self._finish(task, TaskStatus.FAILED, "its client did not fetch it in time")
            if not waiting:
                del self._pending[client]

    def due(self) -> float | None:
        """When the next is given up."""
        times = [each.started + self._index.settings.put_release for each in _first(self._running.values())]
        times += [each.updated + TASK_TIMEOUT_S for each in _first(self._fetched.values())]
        times += [waiting[0].created + TASK_TIMEOUT_S for waiting in self._pending.values() if waiting]
        return min(times, default=None)

    def cancel(self, entry: Entry) -> None:
        """A value goes: so does what was being done with it."""
        if entry in self._running:
            self._stop(entry)

    def _entry(self, key: str, tenant: str) -> Entry | None:
        entry = self._index.tenants.entry(tenant, key)
        return entry if entry is not None and entry.readable else None

    def _target(self, name: str) -> Code:
        """Whether something can be put in the segment of that name."""
        if self._index.segments.named(name):
            return Code.OK
        there = any(each.name == name and each.alive for each in self._index.segments)
        return Code.BAD_STATUS if there else Code.NO_SEGMENT

    def _held_in(self, entry: Entry, name: str) -> Held | None:
        return next((held for held in entry.memory if held.segment.name == name and held.readable), None)

    def _ms(self, at: float) -> int:
        return round((at + self._index.settings.epoch) * 1000)

    def _ask(self, kind: int, source: Held, said: object) -> bytes | Code:
        if self._waiting >= MAX_TASKS:
            return Code.TOO_MANY_TASKS
        task = _Known(self._new_id(), kind, source.segment.client, json.dumps(said), self._index.clock())
        self._known[task.id] = task
        self._pending.setdefault(task.client, deque()).append(task)
        self._waiting += 1
        return task.id

    def _finish(self, task: _Known, status: TaskStatus, message: str) -> None:
        if task.status is TaskStatus.PENDING:
            self._waiting -= 1  # it stays in its queue until that is looked at
        self._fetched.pop(task.id, None)
        task.status = status
        task.message = message[:MAX_MESSAGE]
        task.updated = self._index.clock()
        self._finished.append(task.id)
        if len(self._finished) > MAX_TASKS:
            self._known.pop(self._finished.popleft(), None)

    def _startable(self, key: str, source: str, targets: Sequence[str], tenant: str) -> tuple[Entry, Held] | Code:
        bad = next((code for code in map(self._target, targets[:MAX_TARGETS]) if code is not Code.OK), None)
        if bad is not None:
            return bad
        entry = self._entry(key, tenant)
        if entry is None:
            return Code.NOT_FOUND
        if entry in self._running:
            return Code.HAS_TASK
        held = self._held_in(entry, source)
        return Code.NO_REPLICA if held is None else (entry, held)

    def _places(self, entry: Entry, names: Sequence[str]) -> list[Held] | Code:
        """Room in each of these segments, or in none."""
        index = self._index
        if entry.tenant.quota and not room_in(entry.tenant, entry.size * len(names)):
            return Code.QUOTA
        made: list[Held] = []
        for name in names[:MAX_TARGETS]:
            for segment in index.segments.named(name):
                offset = index.segments.take(segment, entry.size)
                if offset is not None:
                    made.append(Held(segment, offset))
                    break
            else:
                for held in made:
                    index.segments.free(held.segment, held.offset, entry.size)
                return Code.NO_SPACE
        return made

    def _run(self, kind: int, client: bytes, entry: Entry, source: Held, targets: list[Held]) -> None:
        source.holds += 1
        for held in targets:
            self._index.extend(entry, held)
        self._running[entry] = _Running(kind, client, source, targets, self._index.clock())

    def _started(self, client: bytes, key: str, tenant: str, kind: int) -> tuple[Entry, _Running] | Code:
        entry = self._index.tenants.entry(tenant, key)
        if entry is None:
            return Code.NOT_FOUND
        running = self._running.get(entry)
        if running is None:
            return Code.NO_TASK_FOR_KEY
        if running.client != client:
            return Code.ILLEGAL_CLIENT
        return (entry, running) if running.kind == kind else Code.BAD_PARAMS

    def _stop(self, entry: Entry) -> None:
        self._running.pop(entry).source.holds -= 1


def _first(values: Iterable[_T]) -> Iterable[_T]:
    """The first of them, the oldest, if there is one."""
    return islice(values, 1)
