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
from collections.abc import Callable, Iterator
from pathlib import Path

from p2pstore.agent.client import result_of
from p2pstore.bench.broadcast_outcome import Broadcast, BroadcastPlan, Received
from p2pstore.bench.memory import Reserve, directory_in_memory
from p2pstore.bench.places import Limited, Loopback, Places
from p2pstore.bench.processes import BenchAgent, running
from p2pstore.bench.processors import ProcessorTime, busy_share
from p2pstore.errors import AgentNotRunning, AgentUnreachable, MooncakeError

NAME = "broadcast"
"""The object's name."""

WATCH_SECONDS = 0.05
"""How often the seed is asked what it has sent, when it is to be killed."""

BLOCK = 1 << 20

MIN_PATIENCE = 120.0
PATIENCE = 20.0
"""A broadcast that takes longer than ``MIN_PATIENCE`` and so many times S/B is broken off."""


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
        with running(self._places, self._directory, plan.receivers + 1, plan.modules) as self._agents:
            self._say(f"{len(self._agents)} agents are up")
            try:
                yield
            finally:
                self._over.set()

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
        spent, before = self._processor_seconds(), ProcessorTime.now()
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
        self._result.busy = busy_share(before, ProcessorTime.now())
        self._result.processor_seconds = self._processor_seconds() - spent
        self._over.set()
        for helper in helpers:
            helper.join()

    def _processor_seconds(self) -> float:
        return sum(agent.processor_seconds for agent in self._agents)

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
