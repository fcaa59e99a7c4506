"""Masters for tests, as processes that can be ended and started again: ours, and the real one out of the wheel."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

from tests.interop.wheels import wheel
from tests.ports import reserved_port

START_SECONDS = 60


class AMaster(ABC):
    """A master's process."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.port = reserved_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """What is run, and variables for it."""

    def start(self) -> None:
        command, variables = self.command()
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **variables})
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")[-2000:]
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)

    def halt(self) -> None:
        """Let it stand still; all its threads do when this returns."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        deadline = time.monotonic() + START_SECONDS
        while any((each / "stat").read_text().rpartition(")")[2].split()[0] != "T" for each in tasks.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RealMaster(AMaster):
    """Upstream's ``mooncake_master``. Skips the test, loudly, where the wheel is not usable."""

    def __init__(self, log: Path, *options: str) -> None:
        super().__init__(log)
        self._wheel = wheel("newest")
        self._options = options
        self._metrics = reserved_port()
        self.start()

    def command(self) -> tuple[list[str], dict[str, str]]:
        binary = self._wheel.package / "mooncake_master"
        binary.chmod(0o755)
        places = [f"--rpc_port={self.port}", f"--metrics_port={self._metrics}", "--rpc_address=127.0.0.1"]
        return [str(binary), *places, "--logtostderr=1", *self._options], self._wheel.environment


class OurMaster(AMaster):
    """A master of ours."""

    def __init__(self, log: Path, **settings: object) -> None:
        super().__init__(log)
        self._settings = json.dumps(settings)
        self.start()

    def command(self) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-m", "tests.p2pstore.kv.client.our_master", str(self.port), self._settings], {}
