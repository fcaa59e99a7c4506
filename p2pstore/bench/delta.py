"""What a new version of a checkpoint costs: one seed, and N receivers with the version before, each an agent's process.

As in a broadcast nothing is simulated. All receivers get the first version at the same moment, then the second, with
``update``, in its place: what differs is told beside what a full get took. In the end every file is compared with the
source, byte for byte.
"""

from __future__ import annotations

import contextlib
import filecmp
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pstore.agent.client import result_of
from p2pstore.bench import checkpoint
from p2pstore.bench.checkpoint import MIN_SIZE, Run, Shard, layout
from p2pstore.bench.memory import directory_in_memory
from p2pstore.bench.places import Limited, Loopback, Places
from p2pstore.bench.processes import BenchAgent, running
from p2pstore.errors import MooncakeError, UsageError

NAME = "checkpoint"
"""The object's name."""

MAX_RECEIVERS = 64
MAX_RUNS = 100_000

MIN_PATIENCE = 300.0
PATIENCE = 40.0
"""Seconds for all to get a version; so many times S/B, where that is more."""


@dataclass(frozen=True)
class DeltaPlan:
    """What is measured: sizes in bytes, ``rate`` in bytes a second (0: none), ``share`` of the bytes that change."""

    receivers: int = 2
    size: int = 512 << 20
    share: float = 0.02
    runs: int = 1
    rate: float = 0.0
    chunk_size: int | None = None
    directory: Path | None = None

    def check(self) -> None:
        """Raise ``UsageError`` for a plan that makes no sense."""
        if not 1 <= self.receivers <= MAX_RECEIVERS:
            raise UsageError(detail=f"receivers: {self.receivers} is not between 1 and {MAX_RECEIVERS}")
        if self.size < MIN_SIZE:
            raise UsageError(detail=f"size: a checkpoint has {MIN_SIZE >> 20} MiB at least")
        if not 0 < self.share <= 0.5:
            raise UsageError(detail="share: it is between 0 and a half")
        if not 1 <= self.runs <= min(MAX_RUNS, int(self.size * self.share) // 2):
            raise UsageError(detail=f"runs: {self.runs} is not between 1 and {MAX_RUNS}, or each has no byte")


@dataclass
class Got:
    """What one get of one receiver brought; sizes in bytes."""

    seconds: float = 0.0
    pulled: int = 0
    reused: int = 0
    peers: dict[str, int] = field(default_factory=dict)


@dataclass
class Updated:
    """One receiver: its full get, its update, and whether what lies there then is the new version."""

    node: str
    full: Got = field(default_factory=Got)
    update: Got = field(default_factory=Got)
    equal: bool = False
    error: str = ""


@dataclass
class Delta:
    """What came of it. ``size`` is the object's, ``changed`` how many of its bytes are others."""

    plan: DeltaPlan
    size: int = 0
    changed: int = 0
    chunk_size: int = 0
    chunks: int = 0
    receivers: list[Updated] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every receiver has the new version."""
        return all(received.equal and not received.error for received in self.receivers)

    def to_json(self) -> dict[str, Any]:
        """As JSON types. ``moved`` is the most that a node pulled for the update, ``share`` that of the size."""
        moved = max((received.update.pulled for received in self.receivers), default=0)
        return {
            "receivers": self.plan.receivers,
            "size": self.size,
            "runs": self.plan.runs,
            "changed": self.changed,
            "chunk_size": self.chunk_size,
            "chunks": self.chunks,
            "rate": self.plan.rate or None,
            "moved": moved,
            "share": moved / self.size if self.size else 0.0,
            "full_seconds": max((received.full.seconds for received in self.receivers), default=0.0),
            "update_seconds": max((received.update.seconds for received in self.receivers), default=0.0),
            "ok": self.ok,
            "nodes": [
                {
                    "node": received.node,
                    "full": vars(received.full),
                    "update": vars(received.update),
                    "equal": received.equal,
                    "error": received.error,
                }
                for received in self.receivers
            ],
        }


def delta(plan: DeltaPlan, say: Callable[[str], None]) -> Delta:
    """Carry out a plan; ``say`` is told what happens. Whatever was made is gone when it returns or raises.

    A receiver that failed says so in the result. Raises ``UsageError`` for a plan that cannot be carried out here,
    ``MetadataUnavailable`` or ``AgentStartFailed`` when the processes do not come up.
    """
    plan.check()
    with contextlib.ExitStack() as stack:
        directory = plan.directory
        if directory is None and plan.rate:
            directory = directory_in_memory(plan.size * 2 * (plan.receivers + 1))
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mooncake-delta-", dir=directory)))
        rates = [plan.rate] * (plan.receivers + 1)
        places: Places = stack.enter_context(Limited(rates)) if plan.rate else Loopback()
        agents = stack.enter_context(running(places, made, plan.receivers + 1))
        say(f"{len(agents)} agents are up")
        return _measure(plan, agents, made, say)


def _measure(plan: DeltaPlan, agents: Sequence[BenchAgent], directory: Path, say: Callable[[str], None]) -> Delta:
    shards = layout(plan.size)
    runs = checkpoint.changes(shards, plan.share, plan.runs)
    old, new = directory / "step-1", directory / "step-2"
    checkpoint.write(old, shards)
    checkpoint.write_changed(new, old, runs)
    result = Delta(plan, _size(shards), _changed(runs), receivers=[Updated(agent.name) for agent in agents[1:]])
    for source, update in ((old, False), (new, True)):
        how = {"chunk_size": plan.chunk_size, "hash_name": "xxh3_128", "force": update}
        made = result_of(agents[0].client.register(str(source), NAME, **how))  # type: ignore[arg-type]
        result.chunk_size, result.chunks = made["chunk_size"], made["chunks"]
        what = f"{result.changed} of {result.size} bytes are others" if update else f"{result.size} bytes"
        say(f"registered a checkpoint in {made['chunks']} chunks, {what}; {plan.receivers} get it")
        _distribute(plan, agents[1:], result.receivers, update=update)
    for agent, received in zip(agents[1:], result.receivers, strict=True):
        names = [shard.name for shard in shards]
        _, differ, missing = filecmp.cmpfiles(new, agent.directory / "received", names, shallow=False)
        received.equal = not differ and not missing
    return result


def _distribute(plan: DeltaPlan, agents: Sequence[BenchAgent], receivers: Sequence[Updated], *, update: bool) -> None:
    """Let all receivers get what is registered at the same moment, and wait for them."""
    ready = threading.Barrier(len(agents))

    def receive(agent: BenchAgent, received: Updated) -> None:
        ready.wait()
        began = time.monotonic()
        try:
            result = result_of(
                agent.client.get(NAME, str(agent.directory / "received"), transport="tcp", update=update)
            )
            got = Got(time.monotonic() - began, result["bytes_pulled"], result["bytes_reused"], dict(result["peers"]))
            if update:
                received.update = got
            else:
                received.full = got
        except MooncakeError as error:
            received.error = received.error or str(error)
        except Exception as error:  # noqa: BLE001 - the result tells of it
            received.error = received.error or f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=receive, args=pair, daemon=True) for pair in zip(agents, receivers, strict=True)]
    for thread in threads:
        thread.start()
    patience = max(MIN_PATIENCE, PATIENCE * plan.size / plan.rate if plan.rate else 0.0)
    deadline = time.monotonic() + patience
    for thread, received in zip(threads, receivers, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            received.error = received.error or f"not through after {patience:.0f} s"


def _size(shards: Sequence[Shard]) -> int:
    return sum(shard.size for shard in shards)


def _changed(runs: Sequence[Run]) -> int:
    return sum(run.length for run in runs)
