"""A handle means one process: it sees its end, signals it, and leaves its successor of the same number alone."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from engine.processes import ProcessHandle, processor_seconds, start_time

WAIT = 60.0

MANY = 1500
"""A descriptor's number, larger than select(2) takes."""


@pytest.fixture(params=["pidfd", "number"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With pidfds, and as on a system that has none."""
    if request.param == "number":

        def refuse(pid: int) -> int:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(os, "pidfd_open", refuse)
    return str(request.param)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def test_it_sees_a_process_live_and_end(way: str, child: subprocess.Popen[bytes]) -> None:
    with ProcessHandle(child.pid) as handle:
        assert not handle.ended()
        assert not handle.ended(0.05)
        handle.send(signal.SIGTERM)
        assert handle.ended(WAIT), "a zombie has ended"
        assert child.wait(WAIT) == -signal.SIGTERM
        assert handle.ended()
        handle.send(signal.SIGTERM)


def test_among_thousands_of_descriptors(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """As an agent with many clients has them: more than select(2) can be asked about."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft <= MANY:
        if hard != resource.RLIM_INFINITY and hard <= MANY:
            pytest.skip(f"the hard limit of open files is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 1, hard))
    try:
        low = os.pidfd_open(child.pid)
        monkeypatch.setattr(os, "pidfd_open", lambda _: fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, MANY))
        with ProcessHandle(child.pid) as handle:
            assert not handle.ended(0.01)
            handle.send(signal.SIGTERM)
            assert handle.ended(WAIT)
        os.close(low)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_has_ended_before_is_no_error(way: str, child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait(WAIT)
    with ProcessHandle(child.pid) as handle:
        assert handle.ended()
        handle.send(signal.SIGKILL)


def test_another_process_of_the_same_number_is_left_alone(way: str, child: subprocess.Popen[bytes]) -> None:
    started = start_time(child.pid)
    assert started > 0
    with ProcessHandle(child.pid, started - 1) as handle:
        assert handle.ended()
        handle.send(signal.SIGKILL)
    with ProcessHandle(child.pid, started) as handle:
        assert not handle.ended()
    assert child.poll() is None


def test_numbers_that_stand_for_many_are_refused(way: str) -> None:
    for pid in (0, -1):
        with ProcessHandle(pid) as handle:
            assert handle.ended()
            handle.send(signal.SIGKILL)


def test_a_start_time_is_the_kernels() -> None:
    assert start_time(os.getpid()) > 0
    assert start_time(0) == 0


def test_the_processor_seconds_of_a_process_are_what_it_says_itself() -> None:
    before, own = processor_seconds(os.getpid()), time.process_time()
    while time.process_time() - own < 0.2:
        pass
    assert processor_seconds(os.getpid()) - before == pytest.approx(0.2, abs=0.15)
    assert processor_seconds(0) == 0.0, "there is no such process"
