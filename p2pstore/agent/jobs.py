"""Gets in the background: the agent makes them by itself, and keeps for a while how each ended.

They outlive the command that asked for them, and not the agent: what a job had brought when the agent ended stays
beside its destination, and the same get resumes. A file in the home remembers them, so that the next agent can say of
each what became of it, and no number is given twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from engine.files.writing import replace_file
from p2pstore.agent.job import CANCELLED, CUT, DONE, FAILED, Job, parse_job
from p2pstore.agent.patience import Patience
from p2pstore.errors import (
    DestinationBusy,
    GetTimedOut,
    JobCancelled,
    JobCut,
    JobNotFound,
    MooncakeError,
    StorageError,
    TooManyJobs,
    from_wire,
)
from p2pstore.objects.file_system import words
from p2pstore.objects.units import format_seconds
from p2pstore.objects.waiting import to_its_end
from p2pstore.pull.get import GetRequest
from p2pstore.pull.pipeline import ASKING
from p2pstore.pull.run import Emit

log = logging.getLogger(__name__)

MAX_RUNNING = 1000
"""Jobs that have not ended; most of them wait for their turn."""

MAX_KEPT = 100
"""Jobs that have ended and are remembered: the last."""

KEPT_SECONDS = 7 * 86400.0
"""For so long at most."""

MAX_FILE = 64 << 20
"""Bytes of the file that is read at the start; what it takes is bounded by the numbers above."""

TAKEN_UP_SECONDS = 15.0
"""For a get to find what it is to bring, before whoever asked for the job is told of it anyway."""

Run = Callable[[GetRequest, Emit], Awaitable[dict[str, Any]]]


class Limits:
    """How patient a job is: seconds that it waits, how often it tries again, and seconds that it takes in all."""

    def __init__(self, wait: float = 0.0, retries: int = 0, timeout: float | None = None) -> None:
        self.patience = Patience(wait, retries)
        self.patient = bool(wait or retries)
        self.timeout = timeout


class Jobs:
    """The jobs of one agent. For one event loop, but for what it writes, which a thread does."""

    def __init__(self, path: Path, home: Path, run: Run, *, clock: Callable[[], float] = time.time) -> None:
        """They are remembered at ``path``; ``run`` makes a get. ``clock`` tells seconds since the epoch."""
        self._path = path
        self._home = home
        self._run = run
        self._clock = clock
        self._jobs: dict[int, Job] = {}
        self._work: dict[int, asyncio.Task[dict[str, Any]]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}  # each sees to one of that work, and is never cancelled
        self._verdicts: dict[int, tuple[str, MooncakeError]] = {}  # why a job is cancelled
        self._listeners: dict[int, set[Emit]] = {}
        self._next = 1
        self._writing = asyncio.Lock()

    async def restore(self) -> None:
        """Remember what the last agent knew; what it had not ended, its end has cut short."""
        try:
            data = await asyncio.to_thread(_read, self._path)
            known: dict[str, Any] = json.loads(data) if data else {"next": 1, "jobs": []}
            jobs = [parse_job(each) for each in known["jobs"]]
            self._next = max(int(known["next"]), *(job.id + 1 for job in jobs), 1)
        except OSError as error:
            log.warning("the jobs before are not remembered: %s: %s", self._path, words(error))
            return
        except (ValueError, KeyError, TypeError, RecursionError):
            log.warning("the jobs before are not remembered: %s is damaged", self._path)
            return
        for job in jobs:
            if job.running:
                job.end(CUT, JobCut(id=job.id, home=self._home), self._clock())
                log.warning("job %d, the get of %s to %s, was cut short by the agent's end", job.id, job.name, job.dest)
            self._jobs[job.id] = job

    def all(self) -> list[Job]:
        """Those that are running or remembered, in the order of their beginning."""
        self._forget()
        return list(self._jobs.values())

    @property
    def running(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self._jobs.values() if job.running]

    def find(self, number: int) -> Job:
        """One of them. Raises ``JobNotFound``."""
        self._forget()
        try:
            return self._jobs[number]
        except KeyError:
            raise JobNotFound(id=number) from None

    async def begin(self, request: GetRequest, asked: Mapping[str, Any], limits: Limits) -> Job:
        """Begin one, and remember it.

        Raises ``DestinationBusy`` where another job writes there, ``TooManyJobs``, or ``StorageError``: it has not
        begun then.
        """
        running = self.running
        dest = str(request.dest)
        if any(job.dest == dest for job in running):
            raise DestinationBusy(path=dest)
        if len(running) >= MAX_RUNNING:
            raise TooManyJobs(count=len(running))
        job = Job(self._next, request.name, dest, dict(asked), self._clock())
        self._next += 1
        self._jobs[job.id] = job
        await to_its_end(self._begin(job, request, limits))
        return job

    async def _begin(self, job: Job, request: GetRequest, limits: Limits) -> None:
        try:
            await self._write()
        except OSError as error:
            del self._jobs[job.id]
            raise StorageError(path=self._path, detail=words(error)) from None
        log.info("job %d: get %s to %s", job.id, job.name, job.dest)
        work = asyncio.create_task(self._attempts(job, request, limits.patience), name=f"job {job.id}")
        self._work[job.id] = work
        self._tasks[job.id] = asyncio.create_task(self._see_to(job, work, limits.timeout), name=f"end of job {job.id}")

    async def taken_up(self, job: Job) -> None:
        """Wait until a job's get has found what it is to bring, or for a while.

        Where it fails before, there is no job, and its error is raised: mostly that nothing is called so.
        """
        task = self._tasks.get(job.id)
        if task is not None:
            found = asyncio.Event()

            def hear(event: Mapping[str, Any]) -> None:
                if event.get("event") == "progress" and event.get("step") != ASKING:
                    found.set()

            listeners = self._listeners.setdefault(job.id, set())
            listeners.add(hear)
            waiting = asyncio.create_task(found.wait())
            try:
                await asyncio.wait({task, waiting}, timeout=TAKEN_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                listeners.discard(hear)
        if job.state == FAILED and job.error is not None and self._jobs.pop(job.id, None) is not None:
            with contextlib.suppress(OSError):  # then the next agent knows of it, and that is all
                await self._write()
            raise from_wire(job.error)

    async def wait(self, number: int, emit: Emit) -> dict[str, Any]:
        """The result of one, once it has ended; ``emit`` hears its events until then. Raises its error."""
        job = self.find(number)
        task = self._tasks.get(number)
        if task is not None:
            for note in job.notes[-1:]:  # the last that others were told
                emit({"event": "note", "text": note})
            emit({"event": "progress", "done": 0, "total": 0, "peers": 0, **job.progress})
            listeners = self._listeners.setdefault(number, set())
            listeners.add(emit)
            try:
                await asyncio.wait({task})
            finally:
                listeners.discard(emit)
        if job.error is not None:
            raise from_wire(job.error)
        return dict(job.result or {})

    async def cancel(self, number: int) -> Job:
        """End one, unless it has ended; once it writes no more, it is returned. Raises ``JobNotFound``."""
        job = self.find(number)
        task = self._tasks.get(number)
        if task is not None:
            self._stop(number, CANCELLED, JobCancelled(id=number))
            await asyncio.wait({task})
        return job

    async def close(self) -> None:
        """The agent ends: so do they."""
        tasks = list(self._tasks.values())
        for number in list(self._tasks):
            self._stop(number, CUT, JobCut(id=number, home=self._home))
        if tasks:
            await asyncio.wait(tasks)

    def _stop(self, number: int, state: str, why: MooncakeError) -> None:
        self._verdicts.setdefault(number, (state, why))
        self._work[number].cancel()

    async def _see_to(self, job: Job, work: asyncio.Task[dict[str, Any]], timeout: float | None) -> None:
        """Wait for a job's end, whatever that is, and note it."""
        alarm: asyncio.TimerHandle | None = None
        if timeout is not None:
            late = GetTimedOut(name=job.name, time=format_seconds(timeout))
            alarm = asyncio.get_running_loop().call_later(timeout, self._stop, job.id, FAILED, late)
        await asyncio.wait({work})
        if alarm is not None:
            alarm.cancel()
        error = None if work.cancelled() else work.exception()
        if work.cancelled():
            job.end(*self._verdicts[job.id], self._clock())
        elif error is None:
            job.end(DONE, work.result(), self._clock())
        elif isinstance(error, MooncakeError):
            job.end(FAILED, error, self._clock())
        else:
            log.error("job %d failed", job.id, exc_info=error)
            job.end(FAILED, MooncakeError(detail=repr(error)), self._clock())
        log.info("job %d is %s%s", job.id, job.state, f": {job.error['message']}" if job.error else "")
        await self._ended(job)

    async def _ended(self, job: Job) -> None:
        try:
            await self._write()
        except OSError as error:
            log.warning("the end of job %d is forgotten with this agent: %s: %s", job.id, self._path, words(error))
        for each in (self._tasks, self._work, self._verdicts, self._listeners):
            each.pop(job.id, None)

    async def _attempts(self, job: Job, request: GetRequest, patience: Patience) -> dict[str, Any]:
        """What comes of a get that is made again while there is patience."""

        def emit(event: dict[str, Any]) -> None:
            patience.hear(event)
            self._tell(job, event)

        told = ""
        while True:
            try:
                return await self._run(request, emit)
            except MooncakeError as error:
                pause = patience.after(error)
                if pause is None:
                    raise
                text = str(error)
            if text != told:
                self._tell(job, {"event": "note", "text": f"{text}; trying again"})
                told = text
            self._tell(job, {"event": "progress", "done": 0, "total": 0, "peers": 0, "step": "waiting", "unit": ""})
            await asyncio.sleep(pause)

    def _tell(self, job: Job, event: dict[str, Any]) -> None:
        job.hear(event)
        for emit in list(self._listeners.get(job.id, ())):
            emit(event)

    def _forget(self) -> None:
        """Those that ended too long ago, and those beyond the number that is kept."""
        ended = [job for job in self._jobs.values() if job.ended is not None and job.id not in self._tasks]
        ended.sort(key=lambda job: job.ended or 0.0)
        since = self._clock() - KEPT_SECONDS
        for place, job in enumerate(ended):
            if (job.ended or 0.0) < since or place < len(ended) - MAX_KEPT:
                del self._jobs[job.id]

    async def _write(self) -> None:
        """Raises ``OSError``."""
        async with self._writing:
            self._forget()
            known = {"next": self._next, "jobs": [job.document() for job in self._jobs.values()]}
            await asyncio.to_thread(replace_file, self._path, json.dumps(known).encode())


def _read(path: Path) -> bytes:
    """What was written; empty where nothing was. Raises ``OSError``, and ``ValueError`` for what is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return b""
    if len(data) > MAX_FILE:
        raise ValueError("too large")
    return data
