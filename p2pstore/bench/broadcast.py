"""A broadcast for real: one seed, N receivers that begin at the same moment, each an agent's process of its own.

Nothing is simulated: agents as ``mooncake node start`` runs them, an etcd, files on disk, TCP. What is measured is the
time from the common beginning until each receiver's call returns, with the object whole, verified, synced and under its
final name. In the end every file is compared with the source, byte for byte.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pstore.agent.client import result_of
from p2pstore.bench.bound import bound
from p2pstore.bench.memory import Reserve, directory_in_memory
from p2pstore.bench.places import Limited, Loopback, Places
from p2pstore.bench.processes import BenchAgent, Etcd, Process, end
from p2pstore.errors import AgentNotRunning, AgentUnreachable, MooncakeError, UsageError

NAME = "broadcast"
"""The object's name."""

MAX_RECEIVERS = 256
"""Each is a process of some 60 MB."""

AGENT = "p2pstore.agent"

WATCH_SECONDS = 0.05
"""How often the seed is asked what it has sent, when it is to be killed."""

BLOCK = 1 << 20

MIN_PATIENCE = 120.0
PATIENCE = 20.0
"""A broadcast that takes longer than ``MIN_PATIENCE`` and so many times S/B is broken off."""


@dataclass(frozen=True)
class BroadcastPlan:
    """What to do. ``rate`` in bytes a second, 0 for loopback without a limit; ``slow`` gives receivers another one.

    The seed is killed when it has sent ``kill_seed_after`` times the object; receiver ``restarted`` each ``restart``
    seconds until it has everything or all others have. ``directory`` is where copies lie; with a ``rate`` it is in
    memory unless another is given, because what is measured then is the network. ``modules`` replaces the agent's
    module, by node number (0 is the seed); it is there for tests.
    """

    receivers: int
    size: int = 256 << 20
    rate: float = 0.0
    chunk_size: int | None = None
    slow: Mapping[int, float] = field(default_factory=dict)
    kill_seed_after: float = 0.0
    restart: float = 0.0
    restarted: int = 1
    transport: str = "tcp"
    directory: Path | None = None
    modules: Mapping[int, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raises ``UsageError`` for a plan that cannot be carried out."""
        if not 1 <= self.receivers <= MAX_RECEIVERS:
            raise UsageError(detail=f"between 1 and {MAX_RECEIVERS} receivers, not {self.receivers}")
        if self.size < 1:
            raise UsageError(detail="an object has at least one byte")
        if self.slow and not self.rate:
            raise UsageError(detail="a slow receiver needs --rate: without it there are no limited network cards")
        for number in (*self.slow, *((self.restarted,) if self.restart else ())):
            if not 1 <= number <= self.receivers:
                raise UsageError(detail=f"there is no receiver {number}; they are numbered 1 to {self.receivers}")
        if self.kill_seed_after and self.transport != "tcp":
            raise UsageError(detail="what the seed sent is counted over TCP only")


@dataclass
class Received:
    """How one receiver fared: ``seconds`` from the beginning, ``peers`` maps nodes to the bytes that each sent it.

    ``progress`` are pairs of seconds and bytes. ``error`` is empty when it got everything.
    """

    node: str
    seconds: float = 0.0
    peers: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    progress: list[tuple[float, int]] = field(default_factory=list)
    restarts: int = 0
    equal: bool = False
    error: str = ""


@dataclass
class Broadcast:
    """What came out. Sizes in bytes, times in seconds."""

    plan: BroadcastPlan
    chunks: int = 0
    seed_bytes: int = 0
    seed_killed: bool = False
    receivers: list[Received] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everybody has it, and it is the same."""
        return all(r.equal and not r.error for r in self.receivers)

    @property
    def last(self) -> float:
        """When the last receiver had it."""
        return max(r.seconds for r in self.receivers)

    @property
    def bound(self) -> float | None:
        """The least time that it could have taken; None without limited network cards."""
        plan = self.plan
        return bound(plan.size, plan.rate, plan.receivers, self.chunks) if plan.rate else None

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        plan, least = self.plan, self.bound
        return {
            "receivers": plan.receivers,
            "size": plan.size,
            "chunks": self.chunks,
            "rate": plan.rate or None,
            "ok": self.ok,
            "last": round(self.last, 6),
            "bound": None if least is None else round(least, 6),
            "percent_of_bound": None if least is None else round(100 * least / self.last, 2),
            "over_copy": round(self.last * plan.rate / plan.size, 4) if plan.rate else None,
            "seed_bytes": self.seed_bytes,
            "seed_ratio": round(self.seed_bytes / plan.size, 4),
            "seed_killed": self.seed_killed,
            "nodes": [
                {
                    "node": r.node,
                    "seconds": round(r.seconds, 6),
                    "peers": r.peers,
                    "restarts": r.restarts,
                    "equal": r.equal,
                    "error": r.error,
                    "notes": r.notes,
                    "progress": [[round(at, 3), done] for at, done in r.progress],
                }
                for r in self.receivers
            ],
        }


def broadcast(plan: BroadcastPlan, say: Callable[[str], None]) -> Broadcast:
    """Carry out a plan; ``say`` is told what happens. Whatever was made is gone when it returns or raises.

    A receiver that failed says so in the result. Raises ``UsageError`` for a plan that cannot be carried out here,
    ``MetadataUnavailable`` or ``AgentStartFailed`` when the processes do not come up.
    """
    plan.check()
    with contextlib.ExitStack() as stack:
        directory = plan.directory
        if directory is None and plan.rate:
            directory = directory_in_memory(plan.size * (plan.receivers + 1))
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="mooncake-broadcast-", dir=directory))
        rates = [plan.slow.get(number, plan.rate) for number in range(plan.receivers + 1)]
        places: Places = stack.enter_context(Limited(rates)) if plan.rate else Loopback()
        return _Run(plan, places, Path(made), say).run()


class _Run:
    def __init__(self, plan: BroadcastPlan, places: Places, directory: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._places = places
        self._directory = directory
        self._say = say
        self._source = directory / "source"
        self._result = Broadcast(plan)
        self._agents: list[BenchAgent] = []
        self._began = 0.0
        self._over = threading.Event()

    def run(self) -> Broadcast:
        with self._processes():
            _fill(self._source, self._plan.size)
            seed = self._agents[0]
            registered = result_of(
                seed.client.register(
                    str(self._source), NAME, chunk_size=self._plan.chunk_size, hash_name="xxh3_128", force=False
                )
            )
            self._result.chunks = registered["chunks"]
            self._say(
                f"registered {self._plan.size} bytes in {registered['chunks']} chunks; {self._plan.receivers} get it"
            )
            self._distribute()
            self._result.seed_bytes = max(self._result.seed_bytes, seed.bytes_sent())
            self._compare()
        return self._result

    @contextlib.contextmanager
    def _processes(self) -> Iterator[None]:
        """Everybody up; and down, in any case."""
        plan = self._plan
        etcd: Etcd | None = None
        try:
            etcd = Etcd(self._places, self._directory)
            etcd.wait()
            for number in range(plan.receivers + 1):
                module = plan.modules.get(number, AGENT)
                agent = BenchAgent(number, self._places, self._directory, etcd.url, module)
                self._agents.append(agent)
                agent.start()
            for agent in self._agents:
                agent.wait()
            self._say(f"{len(self._agents)} agents are up")
            yield
        finally:
            self._over.set()
            found: list[Process | None] = [agent.process for agent in self._agents]
            end([process for process in (*found, etcd) if process is not None])

    def _distribute(self) -> None:
        """Let all receivers get it at the same moment, and wait for them."""
        plan = self._plan
        self._result.receivers = [Received(agent.name) for agent in self._agents[1:]]
        reserve = Reserve(plan.size * plan.receivers if plan.rate else 0)
        ready = threading.Barrier(plan.receivers + 1)
        threads = []
        for agent, received in zip(self._agents[1:], self._result.receivers, strict=True):
            thread = threading.Thread(target=self._receive, args=(agent, received, ready), daemon=True)
            threads.append(thread)
            thread.start()
        reserve.close()
        ready.wait()
        self._began = time.monotonic()
        helpers = []
        if plan.kill_seed_after:
            helpers.append(threading.Thread(target=self._kill_seed, daemon=True))
        if plan.restart:
            helpers.append(threading.Thread(target=self._restart, args=(threads,), daemon=True))
        for helper in helpers:
            helper.start()
        slowest = min([plan.rate, *plan.slow.values()]) if plan.rate else 0.0
        patience = max(MIN_PATIENCE, PATIENCE * plan.size / slowest if slowest else 0.0)
        deadline = self._began + patience
        for thread, received in zip(threads, self._result.receivers, strict=True):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive() and not received.error:
                received.error = f"not through after {patience:.0f} s"
                received.seconds = patience
        self._over.set()
        for helper in helpers:
            helper.join()

    def _receive(self, agent: BenchAgent, received: Received, ready: threading.Barrier) -> None:
        ready.wait()
        while not self._over.is_set():
            try:
                self._get(agent, received)
            except (AgentUnreachable, AgentNotRunning) as error:
                if not (self._plan.restart and agent.number == self._plan.restarted):
                    received.error = str(error)
                    break
                time.sleep(WATCH_SECONDS)  # its agent is being started again
            except MooncakeError as error:
                received.error = str(error)
                break
            except Exception as error:  # noqa: BLE001 - the result tells of it
                received.error = f"{type(error).__name__}: {error}"
                break
            else:
                break
        received.seconds = time.monotonic() - self._began

    def _get(self, agent: BenchAgent, received: Received) -> None:
        dest = str(agent.directory / "received")
        for event in agent.client.get(NAME, dest, transport=self._plan.transport):
            now = time.monotonic() - self._began
            if event["event"] == "progress":
                received.progress.append((now, int(event["done"])))
            elif event["event"] == "note":
                received.notes.append(str(event["text"]))
            elif event["event"] == "result":
                received.progress.append((now, self._plan.size))
                for node, count in event["peers"].items():
                    received.peers[node] = received.peers.get(node, 0) + count

    def _kill_seed(self) -> None:
        seed = self._agents[0]
        while not self._over.wait(WATCH_SECONDS):
            self._result.seed_bytes = seed.bytes_sent()
            if self._result.seed_bytes >= self._plan.kill_seed_after * self._plan.size:
                seed.kill()
                self._result.seed_killed = True
                self._say(f"killed the seed after {time.monotonic() - self._began:.1f} s")
                return

    def _restart(self, threads: list[threading.Thread]) -> None:
        number = self._plan.restarted
        agent, received = self._agents[number], self._result.receivers[number - 1]
        own = threads[number - 1]
        others = [thread for thread in threads if thread is not own]
        while not self._over.wait(self._plan.restart):
            if not own.is_alive() or not any(thread.is_alive() for thread in others):
                return
            agent.kill()
            agent.start()
            try:
                agent.wait()
            except MooncakeError as error:
                received.error = str(error)
                return
            received.restarts += 1

    def _compare(self) -> None:
        for agent, received in zip(self._agents[1:], self._result.receivers, strict=True):
            file = agent.directory / "received"
            received.equal = file.exists() and filecmp.cmp(self._source, file, shallow=False)


def _fill(path: Path, size: int) -> None:
    """Write random bytes, so that nothing on the way can compress or share them."""
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            file.write(os.urandom(min(BLOCK, size - start)))
