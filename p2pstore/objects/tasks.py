"""Hashing ranges of files on several threads."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator

from engine.memory.reading import TooShort, Unreadable, read_range
from engine.net.threads import Threads
from p2pstore.errors import Interrupted, SourceChanged, StorageError
from p2pstore.objects.file_system import words

READ_BYTES = 256 * 1024
"""A thread hashes through a buffer of this size: it stays in the core's cache."""

MANY_WAITS = 64
"""So often a thread gives up its core in one task of the pool when it is a disk that the task waits for."""


def hash_range(
    descriptor: int, start: int, length: int, update: Callable[[memoryview], object], buffer: memoryview, path: str
) -> None:
    """Feed ``length`` bytes of a file to ``update``, through ``buffer``. Raises ``SourceChanged`` at an early end."""
    try:
        read_range(descriptor, start, length, lambda left: buffer[:left], lambda count: update(buffer[:count]))
    except TooShort:
        raise SourceChanged(path=path, detail="it is shorter than it was") from None
    except Unreadable as error:
        raise StorageError(path=path, detail=words(error)) from None


def run_tasks(
    tasks: Iterator[tuple[int, int, int]],
    run: Callable[[int, int, int], None],
    threads: int,
    stop: threading.Event,
    *,
    alone: bool = False,
) -> None:
    """Call ``run`` for every task on ``threads`` threads until ``stop`` is set; raise the first error at the end.

    One thread is the caller's own. ``alone``: the others come in only once a task has waited at least ``MANY_WAITS``
    times. Tasks of many short system calls get slower by every thread that wants the interpreter's lock; but where they
    wait for a disk, others should go on meanwhile.
    """
    queue = _Queue(tasks, run, stop)
    if alone:
        queue.work(until=_Waits())
    if threads == 1:
        queue.work()  # a thread of its own would cost more than hashing a small file
    elif not queue.over:
        helpers = Threads()  # daemons, so that a program need not wait at its exit for what is being hashed
        started = [helpers.start("hash", queue.work) for _ in range(threads)]
        if not any(started):
            queue.work()  # the system refuses threads
        helpers.join(None)
    if queue.errors:
        raise queue.errors[0]
    if stop.is_set():
        raise Interrupted(detail="hashing was cancelled")


class _Queue:
    """Tasks, and what became of them."""

    def __init__(
        self, tasks: Iterator[tuple[int, int, int]], run: Callable[[int, int, int], None], stop: threading.Event
    ) -> None:
        self.errors: list[BaseException] = []
        self._tasks = tasks
        self._run = run
        self._stop = stop
        self._lock = threading.Lock()
        self._empty = False

    @property
    def over(self) -> bool:
        """Whether no further task is to be taken."""
        return self._empty or bool(self.errors) or self._stop.is_set()

    def work(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run one task after the other, as one of several threads."""
        try:
            while not (self.over or until()):
                with self._lock:
                    task = next(self._tasks, None)
                    self._empty = task is None
                if task is not None:
                    self._run(*task)
        except BaseException as error:  # noqa: BLE001 - raised again, by the caller's thread
            with self._lock:
                self.errors.append(error)


class _Waits:
    """Whether the calling thread has waited often since the last time that this was asked."""

    def __init__(self) -> None:
        self._before = -1

    def __call__(self) -> bool:
        before, self._before = self._before, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        return 0 <= before <= self._before - MANY_WAITS
