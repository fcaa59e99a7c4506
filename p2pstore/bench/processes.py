"""The processes of a broadcast: an etcd, and agents that can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.processes import processor_seconds
from p2pstore.agent.client import AgentClient
from p2pstore.agent.embedded_etcd import find_etcd
from p2pstore.agent.home import Home
from p2pstore.bench.places import Places
from p2pstore.errors import AgentNotRunning, AgentStartFailed, AgentUnreachable, MetadataUnavailable

START_SECONDS = 90.0
"""For a process to answer: on a busy machine several that start at once take half a minute."""

END_SECONDS = 6.0
"""Between SIGTERM and SIGKILL; an agent promises to end in less."""

AGENT = "p2pstore.agent"

STARTING = 8
"""Agents that are started at once: each takes a second of a processor, and more would wait for one another too long."""

POLL_SECONDS = 0.05
LOG_TAIL = 2000

ETCD_TRIES = 4
"""Ports that were free a moment ago may be another's when etcd comes to listen there."""

_PROBE = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
connection.request("POST", "/v3/cluster/member/list", "{}")
sys.exit(sys.argv[3].encode() not in connection.getresponse().read())
"""
"""Whether it is this etcd that answers there."""


def environment(directory: Path) -> dict[str, str]:
    """What a process is to see of ours: none of the settings that would make one run differ from another."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MOONCAKE_", "MC_", "ETCD_", "XDG_"))}
    own = str(Path(__file__).resolve().parents[2])
    path = [own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    shared = directory.parent / "state"  # with the secret that the agents of one user share
    return {**kept, "HOME": str(directory), "XDG_STATE_HOME": str(shared), "PYTHONPATH": os.pathsep.join(path)}


class Process:
    """A child with a log file."""

    def __init__(self, command: Sequence[str], directory: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                env=environment(directory),
                start_new_session=True,  # a Ctrl-C is ours to handle
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child.poll() is None

    @property
    def processor_seconds(self) -> float:
        """Seconds of processor that it has had; 0.0 once it was waited for."""
        return processor_seconds(self._child.pid) if self.alive else 0.0

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._child.kill()
        self._child.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        if self.alive:
            self._child.terminate()

    def end(self, deadline: float) -> None:
        """Wait for its end until ``deadline``, then see to it."""
        try:
            self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def words(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            lines = self.log.read_bytes()[-LOG_TAIL:].decode(errors="replace").splitlines()
            return " | ".join(line.strip() for line in lines[-5:] if line.strip()) or "its log is empty"
        return "it has no log"


class Etcd(Process):
    """An etcd at the hub, which keeps nothing; see ``started_etcd``."""

    def __init__(self, places: Places, directory: Path) -> None:
        self._places = places
        port, peer_port = places.ports()
        client, peer = f"http://{places.hub_address}:{port}", f"http://127.0.0.1:{peer_port}"
        self._port = port
        self._name = f"bench-{secrets.token_hex(8)}"
        self.url = f"etcd://{places.hub_address}:{port}"
        options = {
            "name": self._name,
            "data-dir": str(directory / self._name),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"{self._name}={peer}",
        }
        arguments = [find_etcd(), *(f"--{key}={value}" for key, value in options.items())]
        super().__init__(places.at_hub(arguments), directory, directory / "etcd.log")

    def wait(self) -> None:
        """Return when it answers. Raises ``MetadataUnavailable``."""
        deadline = time.monotonic() + START_SECONDS
        asked = [sys.executable, "-c", _PROBE, self._places.hub_address, str(self._port), self._name]
        probe = self._places.at_hub(asked)
        while self.alive and time.monotonic() < deadline:
            done = subprocess.run(probe, check=False, capture_output=True, timeout=START_SECONDS)
            if done.returncode == 0:
                return
            time.sleep(POLL_SECONDS)
        raise MetadataUnavailable(url=self.url, detail=f"etcd did not start: {self.words()}")


def started_etcd(places: Places, directory: Path) -> Etcd:
    """An etcd that answers, the caller's to end. One that ends by itself is tried again, at other ports.

    Raises ``MetadataUnavailable``.
    """
    for tries_left in reversed(range(ETCD_TRIES)):
        etcd = Etcd(places, directory)
        try:
            etcd.wait()
        except MetadataUnavailable:
            ended = not etcd.alive
            end([etcd])
            if not ended or not tries_left:
                raise
        except BaseException:
            end([etcd])
            raise
        else:
            break
    return etcd


class BenchAgent:
    """One node's agent."""

    def __init__(self, number: int, places: Places, directory: Path, metadata: str, module: str) -> None:
        """``module`` is what ``python -m`` runs: the agent's, or a test's that lies."""
        self.number = number
        self.name = "seed" if number == 0 else f"node{number}"
        self.directory = directory / self.name
        self.home = Home.resolve(self.directory / "home")
        self.client = AgentClient(self.home)
        self._places = places
        self._metadata = metadata
        self._module = module
        self._process: Process | None = None
        self._spent = 0.0  # by those that were killed

    def start(self) -> None:
        """Start it; ``wait`` says when it answers."""
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "config.toml"
        config.touch()
        arguments = [sys.executable, "-m", self._module, "--home", str(self.home.root), "--config", str(config)]
        arguments += ["--metadata", self._metadata, "--node", self.name]
        listen = self._places.listen(self.number)
        if listen is not None:
            arguments += ["--listen", listen, "--insecure"]
        command = self._places.at(self.number, arguments)
        self._process = Process(command, self.directory, self.directory / "log")

    def wait(self) -> None:
        """Return when it answers. Raises ``AgentStartFailed``."""
        deadline = time.monotonic() + START_SECONDS
        process = self._process
        while process is not None and process.alive and time.monotonic() < deadline:
            with contextlib.suppress(AgentNotRunning, AgentUnreachable):
                self.client.status()
                return
            time.sleep(POLL_SECONDS)
        words = process.words() if process is not None else "it was never started"
        raise AgentStartFailed(detail=f"{self.name}: {words}")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._spent += self._process.processor_seconds
            self._process.kill()

    @property
    def processor_seconds(self) -> float:
        """Seconds of processor that it has had, under whatever number it was started again."""
        return self._spent + (self._process.processor_seconds if self._process is not None else 0.0)

    def bytes_sent(self) -> int:
        """What it has sent over TCP since it was started; 0 when it does not answer."""
        with contextlib.suppress(AgentNotRunning, AgentUnreachable):
            status: dict[str, Any] = self.client.status()
            return int(status["bytes_sent"])
        return 0

    @property
    def process(self) -> Process | None:
        """The one that was started last."""
        return self._process


def end(processes: Sequence[Process]) -> None:
    """End processes, all at the same time."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + END_SECONDS
    for process in processes:
        process.end(deadline)


@contextlib.contextmanager
def running(
    places: Places, directory: Path, count: int, modules: Mapping[int, str] = MappingProxyType({})
) -> Iterator[list[BenchAgent]]:
    """So many agents up, the first of which is the seed, on an etcd; and down, in any case.

    ``modules`` are what ``python -m`` runs for some of them in an agent's place. Raises ``MetadataUnavailable`` and
    ``AgentStartFailed``.
    """
    agents: list[BenchAgent] = []
    etcd: Etcd | None = None
    try:
        etcd = started_etcd(places, directory)
        for first in range(0, count, STARTING):
            some = [
                BenchAgent(number, places, directory, etcd.url, modules.get(number, AGENT))
                for number in range(first, min(first + STARTING, count))
            ]
            agents += some
            for agent in some:
                agent.start()
            for agent in some:
                agent.wait()
        yield agents
    finally:
        found: list[Process | None] = [agent.process for agent in agents]
        end([process for process in (*found, etcd) if process is not None])
