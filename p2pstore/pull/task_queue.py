"""The runs that a source is to be asked for, until one of its workers takes them.

The oldest first, but that workers keep apart: a file lets one write in at a time, so each rather goes on with the file
that it is at, or begins one that none of the others is at.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from p2pstore.swarm.files import Files

MOST_PASSED = 16
"""How often the oldest run may be passed over: with slow sources it would else count as overdue."""


@dataclass(frozen=True)
class Task:
    """A run to bring. When ``lead`` of it is left, a part of 0 to 1, the worker says so (``Nearing``)."""

    run: range
    lead: float = 0.0


class TaskQueue:
    """For any number of threads."""

    def __init__(self, files: Files) -> None:
        """``files`` are those that are written to, where several at once are better."""
        self._files = files
        self._guard = threading.Lock()  # of what follows, for as long as it takes to choose
        self._tasks: list[Task] = []
        self._at: dict[Hashable, int] = {}  # the file of what each worker took last
        self._passed = 0  # times that the oldest was
        self._closed = False
        self._ready: SimpleQueue[None] = SimpleQueue()  # one for each task, and for each that is to be woken

    def put(self, task: Task) -> None:
        """Append a run."""
        with self._guard:
            self._tasks.append(task)
        self._ready.put(None)

    def withdraw(self, run: range) -> bool:
        """Take a run back. Whether it was still here: else a worker has it."""
        with self._guard:
            index = next((index for index, task in enumerate(self._tasks) if task.run == run), None)
            if index is None:
                return False
            del self._tasks[index]
            return True

    def close(self) -> None:
        """No more come: one who waits, or the next, finds no task. Whoever does closes it again, for another."""
        self._closed = True
        self._ready.put(None)

    def take(self, worker: Hashable, *, block: bool, timeout: float) -> Task | None:
        """The run that a worker is to bring next; None where there is none and the queue was closed.

        Raises ``queue.Empty`` where there is none: at once or, with ``block``, in ``timeout`` seconds, or when one was
        withdrawn.
        """
        self._ready.get(block=block, timeout=timeout)
        with self._guard:
            if not self._tasks:
                if self._closed:
                    return None
                raise Empty
            index = self._best(worker) if self._files else 0
            self._passed = self._passed + 1 if index else 0
            task = self._tasks.pop(index)
            self._at[worker] = self._files.of(task.run.start)
        return task

    def _best(self, worker: Hashable) -> int:
        """Which of the tasks is best for a worker."""
        if self._passed >= MOST_PASSED:
            return 0
        files = [self._files.of(task.run.start) for task in self._tasks]
        own = self._at.get(worker)
        if own in files:
            return files.index(own)
        taken = set(self._at.values())
        return next((index for index, file in enumerate(files) if file not in taken), 0)
