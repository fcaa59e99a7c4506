"""What a person at a terminal sees: a bar that moves, and after Ctrl-C how to go on."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.cluster import PATIENCE, Agent, Cluster, journalled, make_file, resume, same

MIB = 1 << 20
SIZE = 96 * MIB


class Terminal:
    """A command on a pseudo-terminal of its own, as a shell would run it."""

    def __init__(self, agent: Agent, *arguments: object) -> None:
        words = ["--home", str(agent.home), "--metadata", str(agent.metadata), *map(str, arguments)]
        command = [sys.executable, "-m", "mooncake_cli", *words]
        environment = {**agent.environment, "TERM": "xterm", "COLUMNS": "100"}
        begun, inherited = os.pipe()  # the second is closed by execve
        self._pid, self._file = pty.fork()
        if self._pid == 0:  # pragma: no cover - it becomes the command
            try:
                os.chdir(agent.cluster.work)
                os.execve(sys.executable, command, environment)
            finally:
                os._exit(127)
        os.close(inherited)
        try:
            os.read(begun, 1)  # until then a key would interrupt this test's own process, of which that one is a copy
        finally:
            os.close(begun)
        self.seen = ""
        self.status: int | None = None

    def read(self, until: Callable[[], bool] = lambda: False) -> str:
        """Take in what is shown, until something is true or the command ends; all that was shown so far."""
        deadline = time.monotonic() + PATIENCE
        while self.status is None and not until():
            assert time.monotonic() < deadline, self.seen
            if select.select([self._file], [], [], 0.005)[0]:
                try:
                    self.seen += os.read(self._file, 65536).decode(errors="replace")
                except OSError:  # the other end closed: the command ended
                    self._reap()
        return self.seen

    def press(self, key: str) -> None:
        os.write(self._file, key.encode())

    def _reap(self) -> None:
        self.status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._file)

    def close(self) -> None:
        if self.status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()


@pytest.fixture(scope="module")
def data(shared: Cluster, source: Agent) -> Path:
    path = make_file(shared.path("data"), SIZE)
    source.ok("register", path, "--name", "data", "--chunk-size", "1MiB")
    return path


def test_ctrl_c_in_the_middle_and_once_more(shared: Cluster, source: Agent, getter: Agent, data: Path) -> None:
    dest = shared.path("copy")
    source.ok("node", "limit", "--upload", "4MB/s")
    shown = Terminal(getter, "get", "data", dest, "--transport", "tcp")
    try:
        bar = re.compile(r"pulling: +[0-9]+%.*[0-9.]+ MiB/96.0 MiB.*B/s, 1 peer")
        shown.read(lambda: bool(bar.search(shown.seen)) and journalled(dest) >= 4)
        assert shown.status is None, f"the get was too quick to be interrupted: {shown.seen!r}"
        had = journalled(dest)
        shown.press("\x03")
        shown.read()
    finally:
        shown.close()
        resume(source)
    assert shown.status == 130, shown.seen
    assert "run the same command again to resume: mooncake " in shown.seen
    again = re.search(r"resume: mooncake (.*get data \S+ --transport tcp)", shown.seen)
    assert again is not None, shown.seen
    assert "Traceback" not in shown.seen
    assert not dest.exists()

    words = again[1].split()
    done = subprocess.run(
        [sys.executable, "-m", "mooncake_cli", *words, "--json"],
        env=getter.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done
    assert same(data, dest)
    assert json.loads(done.stdout)["bytes_reused"] >= had * MIB


def test_what_is_shown_in_the_end(shared: Cluster, getter: Agent, data: Path) -> None:
    shown = Terminal(getter, "get", "data", shared.path("second"), "--transport", "tcp")
    shown.read()
    assert shown.status == 0, shown.seen
    last = shown.seen.rstrip().splitlines()[-1]
    assert "verified at" in shown.seen or "nothing had to be pulled" in shown.seen
    assert "%" not in last, "the bar is gone"


@pytest.mark.parametrize("after", [0.05, 0.1, 0.15])
def test_ctrl_c_at_the_very_start(getter: Agent, after: float) -> None:
    """While modules are still being loaded. A key that falls into Python's own start is Python's, so press again."""
    shown = Terminal(getter, "node", "logs", "-f")
    try:
        while shown.status is None:
            pressed = time.monotonic() + after
            shown.read(lambda: time.monotonic() >= pressed)  # noqa: B023 - it is used at once
            if shown.status is None:
                shown.press("\x03")
    finally:
        shown.close()
    assert "mooncake_cli/commands" not in shown.seen, shown.seen
