"""Workers take the oldest run, but each goes on with its own file, or begins one that nobody is at."""

from __future__ import annotations

import threading
from queue import Empty

import pytest

from p2pstore.pull.task_queue import MOST_PASSED, Task, TaskQueue
from p2pstore.swarm.files import Files

SEVERAL = Files([0, 10, 20, 30])
"""Three files of ten chunks."""
WAIT = 30.0


def filled(files: Files, *chunks: int) -> TaskQueue:
    queue = TaskQueue(files)
    for chunk in chunks:
        queue.put(Task(range(chunk, chunk + 1)))
    return queue


def taken(queue: TaskQueue, worker: str) -> int:
    task = queue.take(worker, block=False, timeout=0)
    assert task is not None
    return task.run.start


def test_without_several_files_the_oldest_comes_first() -> None:
    queue = filled(Files(), 5, 15, 6, 25)
    assert [taken(queue, worker) for worker in "abab"] == [5, 15, 6, 25]


def test_workers_begin_with_different_files_and_stay_there() -> None:
    queue = filled(SEVERAL, 1, 2, 11, 21, 12, 22)
    assert [taken(queue, worker) for worker in "abc"] == [1, 11, 21]
    assert [taken(queue, worker) for worker in "cab"] == [22, 2, 12]


def test_a_worker_whose_file_is_done_goes_where_nobody_is() -> None:
    queue = filled(SEVERAL, 1, 11, 12, 21)
    assert [taken(queue, worker) for worker in "ab"] == [1, 11]
    assert taken(queue, "a") == 21, "12 is older, but b is at that file"


def test_where_all_are_at_their_files_the_oldest_is_taken() -> None:
    queue = filled(SEVERAL, 1, 11, 12, 13)
    assert [taken(queue, worker) for worker in "aba"] == [1, 11, 12]


def test_the_oldest_is_not_passed_over_for_ever() -> None:
    queue = filled(SEVERAL, 11, 1)
    assert taken(queue, "b") == 11
    assert taken(queue, "a") == 1
    queue.put(Task(range(12, 13)))
    for chunk in range(MOST_PASSED + 1):
        queue.put(Task(range(chunk % 10, chunk % 10 + 1)))
    came = [taken(queue, "a") for _ in range(MOST_PASSED + 1)]
    assert came.index(12) == MOST_PASSED


def test_who_finds_nothing_is_told_so_at_once_or_in_time() -> None:
    queue = filled(SEVERAL)
    for block, timeout in ((False, WAIT), (True, 0.01)):
        with pytest.raises(Empty):
            queue.take("a", block=block, timeout=timeout)


def test_what_was_withdrawn_is_nobodys() -> None:
    queue = filled(SEVERAL, 1, 2, 3)
    assert queue.withdraw(range(2, 3))
    assert not queue.withdraw(range(2, 3))
    assert [taken(queue, "a") for _ in range(2)] == [1, 3]
    assert not queue.withdraw(range(3, 4)), "it was taken"
    for _ in range(2):
        with pytest.raises(Empty):
            queue.take("a", block=True, timeout=0.01)


def test_who_is_woken_has_no_task() -> None:
    queue = filled(SEVERAL)
    found: list[Task | None] = []
    waiting = threading.Thread(target=lambda: found.append(queue.take("a", block=True, timeout=WAIT)))
    waiting.start()
    queue.close()
    waiting.join(WAIT)
    assert found == [None]


def test_of_a_queue_that_is_closed_what_is_there_is_still_taken() -> None:
    queue = filled(SEVERAL, 1)
    queue.close()
    assert taken(queue, "a") == 1
    assert queue.take("a", block=False, timeout=0) is None


def test_each_task_is_taken_once_by_many_threads() -> None:
    queue = filled(SEVERAL, *(list(range(30)) * 20))
    found: list[int] = []

    def work(name: str) -> None:
        while True:
            try:
                found.append(taken(queue, name))
            except Empty:
                return

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(found) == sorted(list(range(30)) * 20)
