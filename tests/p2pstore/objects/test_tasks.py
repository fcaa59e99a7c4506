"""Ranges are hashed once each, on as many threads as asked for, and a fault stops the rest."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from p2pstore.errors import Interrupted, SourceChanged, StorageError
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
