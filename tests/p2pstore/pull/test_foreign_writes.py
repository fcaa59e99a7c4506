"""Whoever closes a file that it could write is heard of; whoever still has it open is found."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from p2pstore.pull import foreign_writes as module
from p2pstore.pull.foreign_writes import ForeignWrites, being_written


def test_writers_are_heard_of_and_readers_are_not(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b", "c"):
        (tmp_path / name).write_bytes(b"x")
    watch = ForeignWrites(tmp_path, ["", "sub"])
    with open(tmp_path / "c", "r+b", buffering=0) as ours:
        ours.write(b"y")  # while it is open nothing is heard
        (tmp_path / "a").read_bytes()
        with open(tmp_path / "a", "r+b") as file:
            file.write(b"!")
        os.close(os.open(tmp_path / "sub" / "b", os.O_WRONLY))
        watch.hear()
        assert watch.closed == {"a": 1, "sub/b": 1}
    watch.hear()
    assert watch.closed["c"] == 1
    assert not watch.lost
    watch.close()
    watch.hear()
    watch.close()


def test_instances_and_watches_do_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shared", module._Shared())
    monkeypatch.setattr(module, "MAX_WATCHES", 3)
    before = len(os.listdir("/proc/self/fd"))
    first = ForeignWrites(tmp_path, [""])
    for number in range(10):
        directory = tmp_path / str(number)
        directory.mkdir()
        watch = ForeignWrites(directory, [""])
        (directory / "x").touch()
        watch.hear()
        assert watch.closed == {"x": 1}
        watch.close()
        (directory / "x").touch()
    assert len(os.listdir("/proc/self/fd")) <= before + 2, "that of the first, and the one in use"
    (tmp_path / "y").touch()
    first.hear()
    assert first.closed == {"y": 1}
    first.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_forked_child_takes_no_events_away(tmp_path: Path) -> None:
    watch = ForeignWrites(tmp_path, [""])
    (tmp_path / "x").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child only looks
        child = os.fork()
    if not child:
        other = ForeignWrites(tmp_path, [""])
        other.hear()
        os._exit(len(other.closed))
    assert os.waitpid(child, 0)[1] == 0
    watch.hear()
    assert watch.closed == {"x": 1}
    watch.close()


def test_too_many_events_are_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ForeignWrites(tmp_path, [""])
    overflow = module._EVENT.pack(-1, module._OVERFLOW, 0, 0)
    answers = [overflow]

    def read(descriptor: int, count: int) -> bytes:
        if not answers:
            raise BlockingIOError
        return answers.pop()

    monkeypatch.setattr(module.os, "read", read)
    watch.hear()
    monkeypatch.undo()
    assert watch.lost
    watch.close()


def test_what_cannot_be_watched_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ForeignWrites(tmp_path, ["none"])
    watch.hear()
    watch.close()
    monkeypatch.setattr(module, "_shared", module._Shared())
    with monkeypatch.context() as patch:
        patch.setattr(module._LIBC, "inotify_init1", lambda _: -1)
        watch = ForeignWrites(tmp_path, [""])
    (tmp_path / "x").write_bytes(b"")
    watch.hear()
    watch.close()
    assert not watch.closed
    watch = ForeignWrites(tmp_path, [""])
    (tmp_path / "x").write_bytes(b"")
    watch.hear()
    assert watch.closed == {"x": 1}, "it can be watched later"
    watch.close()


def test_who_has_it_open_to_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with open(path, "rb") as file:
        assert not being_written(file.fileno())
        with open(path, "rb"):
            assert not being_written(file.fileno())
        with open(path, "r+b"):
            assert being_written(file.fileno())
        assert not being_written(file.fileno())
        with open(path, "r+b"):
            pass  # a lease that was left behind would hold this up
