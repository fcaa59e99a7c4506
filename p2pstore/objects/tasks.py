"""Hashing ranges of files on several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from engine.memory.reading import TooShort, Unreadable, read_range
from p2pstore.errors import Interrupted, SourceChanged, StorageError
from p2pstore.objects.file_system import words

READ_BYTES = 256 * 1024
"""A thread hashes through a buffer of this size: it stays in the core's cache."""


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
    tasks: Iterator[tuple[int, int, int]], run: Callable[[int, int, int], None], threads: int, stop: threading.Event
) -> None:
    """Call ``run`` for every task on ``threads`` threads until ``stop`` is set; raise the first error at the end.

    One thread is the caller's own.
    """
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not (stop.is_set() or errors):
                with lock:
                    task = next(tasks, None)
                if task is None:
                    return
                run(*task)
        except BaseException as error:  # noqa: BLE001 - raised again below, by the caller's thread
            with lock:
                errors.append(error)

    if threads == 1:
        work()  # a thread of its own would cost more than hashing a small file
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
            for _ in range(threads):
                pool.submit(work)
    if errors:
        raise errors[0]
    if stop.is_set():
        raise Interrupted(detail="hashing was cancelled")
