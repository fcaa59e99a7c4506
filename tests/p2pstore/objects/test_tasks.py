"""Ranges are hashed once each, on as many threads as asked for, and a fault stops the rest."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from p2pstore.errors import Interrupted, SourceChanged, StorageError
from p2pstore.objects import tasks as module
from p2pstore.objects.tasks import READ_BYTES, hash_range, run_tasks

BUFFER = memoryview(bytearray(READ_BYTES))


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_each_task_is_run_once(threads: int) -> None:
    wanted = [(file, first, first + 1) for file in range(7) for first in range(11)]
    lock = threading.Lock()
    ran: list[tuple[int, int, int]] = []

    def run(*task: int) -> None:
        with lock:
            ran.append(task)  # type: ignore[arg-type]

    run_tasks(iter(wanted), run, threads, threading.Event())
    assert sorted(ran) == wanted


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_error_is_raised_and_no_new_task_begins(threads: int) -> None:
    begun: list[int] = []

    def run(file: int, first: int, last: int) -> None:
        begun.append(first)
        raise StorageError(path="f", detail=str(first))

    with pytest.raises(StorageError):
        run_tasks(((0, n, n + 1) for n in range(1000)), run, threads, threading.Event())
    assert len(begun) <= threads


def test_a_stop_is_an_interruption() -> None:
    stop = threading.Event()
    with pytest.raises(Interrupted):
        run_tasks(((0, n, n + 1) for n in range(1000)), lambda *_: stop.set(), 2, stop)


def test_a_range_is_read_whole_and_an_early_end_is_no_hash(tmp_path: Path) -> None:
    data = os.urandom(3 * READ_BYTES + 17)
    path = tmp_path / "f"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    got = bytearray()
    try:
        hash_range(descriptor, 5, len(data) - 5, got.extend, BUFFER, str(path))
        assert got == data[5:]
        with pytest.raises(SourceChanged, match="shorter"):
            hash_range(descriptor, 5, len(data), got.extend, BUFFER, str(path))
    finally:
        os.close(descriptor)


def test_what_cannot_be_read_names_its_path(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(StorageError, match="the place"):
            hash_range(descriptor, 0, 1, lambda _: None, BUFFER, "the place")
    finally:
        os.close(descriptor)


def test_threads_that_would_only_want_the_same_lock_stay_away() -> None:
    ran: list[threading.Thread] = []
    tasks = ((number, 0, 0) for number in range(100))
    run_tasks(tasks, lambda *_: ran.append(threading.current_thread()), 4, threading.Event(), alone=True)
    assert ran == [threading.main_thread()] * 100


def test_threads_come_in_where_a_task_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY_WAITS", 2)
    ran: list[threading.Thread] = []
    all_in = threading.Barrier(3)

    def run(number: int, _: int, __: int) -> None:
        ran.append(threading.current_thread())
        if number == 0:
            for _ in range(4):
                time.sleep(0.001)
        elif number <= 3:
            all_in.wait(60)

    run_tasks(((number, 0, 0) for number in range(10)), run, 3, threading.Event(), alone=True)
    assert len(ran) == 10
    assert ran[0] is threading.main_thread()
    assert threading.main_thread() not in ran[1:]


def test_a_fault_of_one_that_is_alone_is_raised() -> None:
    def run(number: int, _: int, __: int) -> None:
        raise StorageError(path="x", detail=str(number))

    with pytest.raises(StorageError, match="0"):
        run_tasks(iter([(0, 0, 0), (1, 0, 0)]), run, 2, threading.Event(), alone=True)


def test_threads_keep_no_program_from_ending() -> None:
    ran: list[threading.Thread] = []
    run_tasks(((n, 0, 0) for n in range(10)), lambda *_: ran.append(threading.current_thread()), 2, threading.Event())
    assert all(thread.daemon for thread in ran)


def test_where_the_system_refuses_threads_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ran: list[int] = []
    run_tasks(((n, 0, 0) for n in range(10)), lambda number, *_: ran.append(number), 4, threading.Event())
    assert ran == list(range(10))
