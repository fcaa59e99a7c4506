"""Start an agent in the background, and end one.

Whoever starts an agent holds ``start.lock`` of its home meanwhile, so that of several commands started together one
starts it and the others wait. An agent started by other means at the same moment is found by the lock it holds itself:
ours then ends with ``AgentRunning``, and we wait for the winner.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine import forks
from engine.config.layers import DEFAULT_ORIGIN
from engine.files.locks import FileLock
from engine.files.system import system
from engine.files.writing import write_note
from engine.processes import ProcessHandle
from p2pstore.agent.client import STATUS_TIMEOUT, AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.home_lock import OWN_FILE, holder, waits_for
from p2pstore.errors import (
    AgentNotRunning,
    AgentRunning,
    AgentStartFailed,
    AgentStarting,
    AgentUnreachable,
    HomeUnusable,
    MooncakeError,
    StorageError,
    from_wire,
)
from p2pstore.settings.settings import Settings

START_TIMEOUT = 90.0
"""Seconds from the start of the process until its socket answers; an embedded etcd's first start is in it.

One that dies is noticed at once, so this is for the slowest of machines: an emulated one, busy besides, took 35.
"""

SLOW_SECONDS = 10.0
"""After so long the user is told that it has not answered yet."""

POLL = 0.05
"""Seconds between two looks at whether it answers."""

STOP_TIMEOUT = 10.0
"""Seconds for an agent to end after it said that it will; it promises 5."""

TERM_TIMEOUT = 6.0
"""Seconds for it to end after SIGTERM."""

LOG_TAIL_LINES = 5
"""Lines of its log that the error of a failed start quotes."""

LOG_TAIL_BYTES = 8192

_PASSED = ("listen", "metadata", "node")
"""Settings that the agent is given as options, so that ``ps`` shows them."""

_children: list[subprocess.Popen[bytes]] = []
"""Agents that this process started: kept, since they outlive us and nobody waits for them."""


@dataclass(frozen=True)
class Stopped:
    """What ``stop_agent`` ended: pids, None where there was none, and whether the agent had to be sent SIGTERM.

    ``jobs`` are the numbers of the gets in the background that ended with it.
    """

    pid: int | None
    terminated: bool = False
    etcd_pid: int | None = None
    jobs: tuple[int, ...] = ()


def ensure_agent(
    home: Home,
    settings: Settings,
    *,
    verbose: bool = False,
    patience: float = 0.0,
    tell: Callable[[str], None] = lambda _: None,
) -> bool:
    """See that an agent answers in ``home``; True when this call started it. A ``verbose`` one logs all that it can.

    ``patience`` is for how many seconds it waits for a metadata server that does not answer; ``tell`` hears of it,
    and of a slow start.

    Raises:
        HomeElsewhere: the home's agent runs on another host.
        AgentUnreachable: one is there and does not answer.
        AgentStartFailed: it ended, or did not answer within ``START_TIMEOUT``; the error quotes its log.
        MooncakeError: what the agent said when it failed to start.
    """
    deadline = time.monotonic() + START_TIMEOUT
    if _answers(home, deadline):
        return False
    home.create()
    with _start_lock(home, deadline):
        if _answers(home, deadline):
            return False
        process = _spawn(home, settings, verbose=verbose, patience=patience)
        return _wait_until_it_answers(home, process, deadline, tell)


def stop_agent(home: Home) -> Stopped:
    """End the agent of ``home``, and an embedded etcd that a dead agent left behind.

    Raises:
        AgentNotRunning: neither is there.
        AgentUnreachable: it did not end, not by SIGTERM either.
        HomeElsewhere: it runs on another host.
    """
    client = AgentClient(home, timeout=STATUS_TIMEOUT)
    try:
        status = client.status()
    except AgentNotRunning:
        etcd_pid = stop_left_behind(home)
        if etcd_pid is None:
            raise
        return Stopped(pid=None, etcd_pid=etcd_pid)
    except AgentUnreachable:
        found = holder(home)
        if found is None or not found.here or not found.pid:
            raise
        with ProcessHandle(found.pid, found.started) as process:
            _terminate(home, process)
        return Stopped(pid=found.pid, terminated=True, etcd_pid=stop_left_behind(home))
    pid = client.process()
    jobs = tuple(int(job["id"]) for job in status.get("jobs", []))
    if not pid:
        return replace(_stop_elsewhere(home, client, int(status["pid"])), jobs=jobs)
    with ProcessHandle(pid) as process:
        # It may end before its answer is out.
        with contextlib.suppress(AgentUnreachable, AgentNotRunning):
            client.stop()
        if _ended(process, STOP_TIMEOUT):
            return Stopped(pid=pid, jobs=jobs)
        _terminate(home, process)
    return Stopped(pid=pid, terminated=True, jobs=jobs)


def _stop_elsewhere(home: Home, client: AgentClient, pid: int) -> Stopped:
    """Ask an agent of another PID namespace to end: its pid is nobody's here, or another process's."""
    with contextlib.suppress(AgentUnreachable, AgentNotRunning):
        client.stop()
    deadline = time.monotonic() + STOP_TIMEOUT
    while time.monotonic() < deadline:
        if holder(home) is None:
            return Stopped(pid=pid)
        time.sleep(POLL)
    detail = f"it was asked to end, and has not; it is process {pid} of another container (PID namespace)"
    raise AgentUnreachable(home=home.root, detail=detail)


def left_behind(home: Home) -> int | None:
    """The pid of the embedded etcd that is recorded in ``home`` and lives, or None."""
    from p2pstore.agent.embedded_etcd import recorded  # noqa: PLC0415 - no part of a client's start

    record = recorded(home.etcd)
    return None if record is None else record.pid


def stop_left_behind(home: Home) -> int | None:
    """End the embedded etcd that is recorded in ``home``; its pid, or None where none lives."""
    pid = left_behind(home)
    if pid is not None:
        import asyncio  # noqa: PLC0415 - no part of a client's start

        from p2pstore.agent.embedded_etcd import EmbeddedEtcd  # noqa: PLC0415 - as above

        asyncio.run(EmbeddedEtcd(home.etcd).stop())
    return pid


def log_tail(home: Home, lines: int) -> list[str]:
    """The last ``lines`` lines of the agent's log, of its last few KiB."""
    try:
        with home.log.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - LOG_TAIL_BYTES))
            return stream.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


def _answers(home: Home, deadline: float) -> bool:
    """Whether an agent answers; one that starts is waited for, unless it waits for something itself."""
    while True:
        try:
            AgentClient(home, timeout=STATUS_TIMEOUT).status()
        except AgentNotRunning:
            return False
        except AgentStarting:
            if waits_for(home) or time.monotonic() > deadline:
                raise
            time.sleep(POLL)
        else:
            return True


@contextlib.contextmanager
def _start_lock(home: Home, deadline: float) -> Iterator[None]:
    try:
        descriptor = system.open(home.start_lock, os.O_RDWR | os.O_CREAT | OWN_FILE, 0o600)
    except OSError as error:
        raise HomeUnusable(path=home.start_lock, detail=error.strerror or error) from error
    lock: FileLock | None = None
    try:
        forks.hold_descriptor(descriptor)
        while True:
            try:
                lock = FileLock(descriptor, home.start_lock)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    detail = f"another command has been starting it for {START_TIMEOUT:g} s"
                    raise AgentStartFailed(detail=detail) from None
                time.sleep(POLL)
        try:  # an agent whose disk is full cannot even log it
            write_note(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise HomeUnusable(path=home.start_lock, detail=error.strerror or error) from None
        yield
    finally:
        system.close(descriptor)
        if lock is not None:
            lock.let_go()


def _command(home: Home, settings: Settings, patience: float = 0.0) -> list[str]:
    command = [sys.executable, "-m", "p2pstore.agent", *home.arguments()]
    if settings.config is not None:
        command += ["--config", str(settings.config)]
    for name in _PASSED:
        if settings.origins[name] != DEFAULT_ORIGIN:
            command += [f"--{name}", str(getattr(settings, name))]
    if patience:
        command += ["--patience", f"{patience:g}"]
    return [*command, "--insecure"] if settings.insecure else command


def _child_environment(settings: Settings) -> dict[str, str]:
    """The settings as an environment, and a module path on which the child finds this package.

    The child does not run in the current directory: a background process would keep its mount busy, and ``python -m``
    would import whatever lies there.
    """
    environment = settings.environment()
    own = str(Path(__file__).resolve().parents[2])
    given = environment.get("PYTHONPATH")
    entries = [os.path.abspath(entry) for entry in given.split(os.pathsep) if entry] if given else []
    environment["PYTHONPATH"] = os.pathsep.join(entries if own in entries else [*entries, own])
    return environment


def _spawn(home: Home, settings: Settings, *, verbose: bool, patience: float) -> subprocess.Popen[bytes]:
    for word in (home.start_error, home.waiting):
        word.unlink(missing_ok=True)
    try:
        with home.log.open("ab") as log:
            process = subprocess.Popen(
                [*_command(home, settings, patience), *(["--verbose"] if verbose else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home.root,
                env=_child_environment(settings),
                start_new_session=True,
            )
    except OSError as error:
        if error.filename is None:  # it is no matter of the home: there is no process for it
            raise StorageError(path=sys.executable, detail=error.strerror or error) from error
        raise HomeUnusable(path=error.filename, detail=error.strerror or error) from error
    _children.append(process)
    return process


def _wait_until_it_answers(
    home: Home, process: subprocess.Popen[bytes], deadline: float, tell: Callable[[str], None]
) -> bool:
    """True when ``process`` answers, False when the agent that answers is another one."""
    told = ""
    slow = time.monotonic() + SLOW_SECONDS
    while time.monotonic() < deadline:
        if time.monotonic() > slow:
            slow = deadline
            tell(f"the agent starts slowly: no answer for {SLOW_SECONDS:g} s; its log is {home.log}")
        waits = waits_for(home)
        if waits and waits != told:
            told = waits
            tell(f"the agent waits: {waits}")
        status = process.poll()
        with contextlib.suppress(AgentNotRunning, AgentUnreachable):
            return int(AgentClient(home, timeout=1.0).status()["pid"]) == process.pid
        if status is not None:
            _raise_unless_another_runs(home, status)
        time.sleep(POLL)
    if process.poll() is None:
        process.terminate()
    raise AgentStartFailed(detail=f"it did not answer within {START_TIMEOUT:g} s{_quoted_log(home)}")


def _raise_unless_another_runs(home: Home, status: int) -> None:
    error = _start_error(home)
    # One that lost the race for the lock may leave no word, so as not to overwrite the winner's.
    if isinstance(error, AgentRunning) or (error is None and status == AgentRunning.exit_code):
        return
    if error is not None:
        raise error
    ending = f"signal {-status}" if status < 0 else f"status {status}"
    raise AgentStartFailed(detail=f"it ended with {ending}{_quoted_log(home)}")


def _start_error(home: Home) -> MooncakeError | None:
    """What an agent that failed wrote down: what one before it left was removed when ours was started.

    Its time says nothing: a file server's clock is its own.
    """
    try:
        data = json.loads(home.start_error.read_bytes())
    except (OSError, ValueError):
        return None
    return from_wire(data.get("error")) if isinstance(data, dict) else None


def _quoted_log(home: Home) -> str:
    lines = [line.strip() for line in log_tail(home, LOG_TAIL_LINES) if line.strip()]
    # Of a traceback people are told its last line; all of it is in the log.
    begins = next((at for at, line in enumerate(lines) if line.startswith(("Traceback", "File "))), len(lines))
    lines = [*lines[:begins], *lines[-1:]] if begins < len(lines) else lines
    return f"; its log ends: {' | '.join(lines)}" if lines else "; its log is empty"


def _ended(process: ProcessHandle, seconds: float) -> bool:
    """Wait up to ``seconds`` for a process to end, and take the status of one that we started."""
    if not process.ended(seconds):
        return False
    for child in _children:
        if child.pid == process.pid:
            child.poll()
    return True


def _terminate(home: Home, process: ProcessHandle) -> None:
    process.send(signal.SIGTERM)
    process.send(signal.SIGCONT)  # one that is stopped does not hear the other
    if not _ended(process, TERM_TIMEOUT):
        detail = f"process {process.pid} did not end on SIGTERM; try 'kill -9 {process.pid}'"
        raise AgentUnreachable(home=home.root, detail=detail)
