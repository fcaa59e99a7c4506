"""Each row says what counts as a refusal; what is lost is said once a file system, and an error stays an error."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.files import refusals
from engine.files.refusals import CANNOT, REFUSALS, Said, cannot, refused, said
from tests.refusing import HANG_SECONDS, RefusingFileSystem

BROKEN = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOENT)
"""What is no refusal, of whichever call, but for what is done another way that would show it, too."""

ASKED_AGAIN = {"sendfile", "socket"}


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("call", sorted(REFUSALS))
def test_what_file_systems_answer_for_what_they_cannot_do_is_a_refusal(call: str) -> None:
    assert REFUSALS[call].instead
    for number in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, 524):
        assert cannot(call, error(number)), number


@pytest.mark.parametrize("call", sorted(set(REFUSALS) - ASKED_AGAIN))
def test_a_fault_is_no_refusal(call: str) -> None:
    for number in BROKEN:
        assert not refused(call, error(number), "/"), number


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EPERM, errno.EACCES, *sorted(CANNOT)])
def test_locks_are_refused_in_more_ways(number: int) -> None:
    assert cannot("flock", error(number))


def test_what_is_lost_is_said_once_a_file_system(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said.clear()
    with caplog.at_level(logging.WARNING, logger=refusals.__name__):
        for name in "ab":
            assert refused("chmod", error(errno.EPERM), tmp_path / name)
            assert refused("rename without replacing", error(errno.EINVAL), tmp_path / name)
    (record,) = caplog.records
    assert "does not let modes be set" in record.getMessage()
    (text,) = said.of(str(tmp_path / "c"))
    assert str(tmp_path) in text
    assert said.of("/proc/self") == ()


def test_what_was_said_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_SAID", 3)
    monkeypatch.setattr(refusals, "_device", lambda path: path)
    mine = Said()
    for number in range(10):
        mine.add("chmod", str(number), "text")
    assert sum(bool(mine.of(str(number))) for number in range(10)) <= 3


def test_a_file_system_that_hangs_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung, mine = tmp_path / "hung", Said()
    hung.mkdir()
    refusing = RefusingFileSystem(hung, monkeypatch)
    asked = threading.Event()

    def hang(real: Callable[..., os.stat_result], *args: str) -> os.stat_result:
        asked.set()
        assert refusing.go_on.wait(HANG_SECONDS)
        return real(*args)

    refusing.answers("stat", hang)
    waiting = [
        threading.Thread(target=mine.add, args=("chmod", str(hung), "text")),
        threading.Thread(target=mine.of, args=(str(hung),)),
    ]
    for thread in waiting:
        asked.clear()
        thread.start()
        assert asked.wait(HANG_SECONDS)
    free = mine._lock.acquire(timeout=0)
    if free:
        mine._lock.release()
    refusing.go_on.set()
    for thread in waiting:
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()
    assert free
