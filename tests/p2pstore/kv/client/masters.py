"""A master for tests: the real one out of the wheel, as a process that can be ended and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.interop.wheels import wheel
from tests.ports import reserved_port

START_SECONDS = 60


class RealMaster:
    """A process of upstream's ``mooncake_master``. Skips the test, loudly, where the wheel is not usable."""

    def __init__(self, log: Path, *options: str) -> None:
        self._wheel = wheel("newest")
        self._log = log
        self._options = options
        self.port, self._metrics = reserved_port(), reserved_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        binary = self._wheel.package / "mooncake_master"
        binary.chmod(0o755)
        places = [f"--rpc_port={self.port}", f"--metrics_port={self._metrics}", "--rpc_address=127.0.0.1"]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(binary), *places, "--logtostderr=1", *self._options],
                stdout=output, stderr=output, env={**os.environ, **self._wheel.environment},
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")[-2000:]
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
