"""The simulated prefill and decode instances: queues, caches and batches on a virtual clock."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from p2pstore.bench.virtual_clock import VirtualClock
from p2pstore.serving.costs import DecodeCost, PrefillCost
from p2pstore.serving.simulation.cache import Cache
from p2pstore.serving.simulation.trace import Request


@dataclass(slots=True, eq=False)
class Job:
    """A request in the simulation. Times in seconds."""

    number: int
    request: Request
    arrived: float
    ready: bool = True
    """What it fetches is there."""
    prefill_seconds: float = 0.0
    reused: int = 0
    """Blocks that were not computed."""
    first: float | None = None
    """When its first token came."""
    began: float = 0.0
    """Steps that its decode instance had done when it joined the batch."""
    place: int = 0
    """The first of the instance's stretches that it was in."""
    first_gap: float = 0.0
    tbt: float = 0.0
    finished: bool = False


class PrefillWorker:
    """Computes one prompt after the other."""

    def __init__(
        self,
        name: str,
        clock: VirtualClock,
        cost: PrefillCost,
        block: int,
        room: int,
        done: Callable[[PrefillWorker, Job], None],
    ) -> None:
        self.name = name
        self.cache = Cache(room)
        self.sending = 0.0
        """When what it sends to others is sent."""
        self.busy = 0.0
        """Seconds of all prefills begun."""
        self.queue: deque[Job] = deque()
        self._clock, self._cost, self._block, self._done = clock, cost, block, done
        self._working = False

    def give(self, job: Job) -> None:
        """Put a prompt at the end of the queue; what it will reuse counts as used now, or it would be gone by then."""
        blocks = job.request.blocks
        self.cache.use(blocks[: self.cache.prefix(blocks)])
        self.queue.append(job)
        self.look()

    def look(self) -> None:
        """Begin with the first of the queue, if nothing is being computed and what it fetches is there."""
        if self._working or not self.queue or not self.queue[0].ready:
            return
        job = self.queue[0]
        self._working = True
        request = job.request
        job.reused = self.cache.prefix(request.blocks)
        reused = max(0, min(job.reused * self._block, request.length - 1))
        job.prefill_seconds = self._cost.seconds(request.length, reused)
        self.busy += job.prefill_seconds
        self._clock.at(self._clock.now + job.prefill_seconds, self._computed, job)

    def _computed(self, job: Job) -> None:
        self.queue.popleft()
        self._working = False
        self._done(self, job)
        self.look()


class DecodeWorker:
    """Decodes a batch step by step. Between two changes of the batch all steps are taken to be equally long."""

    def __init__(
        self,
        name: str,
        clock: VirtualClock,
        cost: DecodeCost,
        joined: Callable[[Job], None],
        done: Callable[[Job], None],
    ) -> None:
        self.name = name
        self.tokens = 0.0
        """Context of the batch."""
        self._reserved = 0
        """What the batch will have when all of it has ended."""
        self._waiting: deque[Job] = deque()
        self._batch: list[tuple[float, int, Job]] = []
        """By the step with which each ends."""
        self._steps = 0.0
        self._since = 0.0
        self._step = cost.seconds(0)
        self._stretches: list[tuple[float, float]] = []
        """Of each stretch between two changes: the steps done when it ended, and the seconds of each."""
        self._changes = 0
        self._clock, self._cost, self._joined, self._done = clock, cost, joined, done

    @property
    def step(self) -> float:
        """Seconds of a step now."""
        return self._step

    def offer(self, job: Job) -> None:
        """Take a request, when there is room."""
        self._waiting.append(job)
        self._change()

    def _change(self) -> None:
        self._pass()
        self._admit()
        self._step = self._cost.seconds(self.tokens)
        self._changes += 1
        if self._batch:
            self._clock.at(
                self._clock.now + max(0.0, self._batch[0][0] - self._steps) * self._step, self._due, self._changes
            )

    def _pass(self) -> None:
        """Do the steps since the last change."""
        now = self._clock.now
        if self._batch and now > self._since:
            steps = (now - self._since) / self._step
            self._steps += steps
            self.tokens += steps * len(self._batch)
            self._stretches.append((self._steps, self._step))
        self._since = now

    def _admit(self) -> None:
        now = self._clock.now
        while self._waiting:
            job = self._waiting[0]
            whole = job.request.length + job.request.output
            if self._batch and self._reserved + whole > self._cost.room:
                break
            self._waiting.popleft()
            self._reserved += whole
            self.tokens += job.request.length
            job.began, job.place = self._steps, len(self._stretches)
            job.first_gap = now - (job.first if job.first is not None else now)
            heapq.heappush(self._batch, (self._steps + max(0, job.request.output - 1), job.number, job))
            self._joined(job)

    def _due(self, change: int) -> None:
        if change != self._changes:
            return
        self._pass()
        least = self._batch[0][0]
        self._steps = max(self._steps, least)
        while self._batch and self._batch[0][0] <= self._steps:
            _, _, job = heapq.heappop(self._batch)
            self._reserved -= job.request.length + job.request.output
            self.tokens -= job.request.length + (self._steps - job.began)
            job.tbt = self._slowest(job)
            self._done(job)
        if not self._batch:
            self.tokens = 0.0
        self._change()

    def _slowest(self, job: Job) -> float:
        """The mean of the longest tenth of the gaps between its tokens."""
        gaps = job.request.output - 1
        if gaps < 1:
            return 0.0
        stretches = []
        before = job.began
        for end, step in self._stretches[job.place :]:
            stretches.append((step, end - before))
            before = end
        stretches.sort(reverse=True)
        wanted = math.ceil(gaps / 10)
        total = job.first_gap + stretches[0][0] if stretches else job.first_gap
        left = wanted - 1.0
        for step, steps in stretches:
            if left <= 0:
                break
            total += step * min(left, steps)
            left -= min(left, steps)
        return total / wanted
