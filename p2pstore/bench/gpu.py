"""A checkpoint from agents of this machine into one GPU and into several: in turns, and every byte compared.

Layouts are ``one`` (all of it to the first GPU, by ``device=``), ``replicate`` and ``shard`` (to all, by ``devices=``).
A round takes each once, in a new random order; the one before the first is not counted.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engine.cuda import load
from p2pstore.agent.client import result_of
from p2pstore.agent.own_secret import own_secret
from p2pstore.bench.gpu_checkpoint import ROWS, Checkpoint
from p2pstore.bench.memory import directory_in_memory
from p2pstore.bench.places import Loopback
from p2pstore.bench.processes import AGENT, BenchAgent, Process, end, environment, started_etcd
from p2pstore.errors import GpuUnavailable, PackageMissing, StorageError, TensorsDiffer, UsageError
from p2pstore.objects.choices import DEFAULT_HASH
from p2pstore.store import P2PStore

NAME = "bench/gpu"
ONE, REPLICATE, SHARD = "one", "replicate", "shard"
LAYOUTS = (ONE, REPLICATE, SHARD)
MAX_AGENTS = 16
MAX_ROUNDS = 1000


class Gpus(Protocol):
    """The GPUs of this process, by a framework that tensors are loaded with."""

    @property
    def names(self) -> Sequence[str]:
        """Of all, as ``device=`` takes them."""

    def same(self, tensor: Any, device: str, shape: tuple[int, int], expected: memoryview) -> bool:
        """Whether a tensor lies on a GPU, and has this shape and these bytes."""

    def settle(self) -> None:
        """Wait for all GPUs, and give back memory that nothing uses."""


class TorchGpus:
    """Those that PyTorch sees."""

    def __init__(self) -> None:
        """Raises ``GpuUnavailable``, and ``UsageError`` without PyTorch or for one without CUDA."""
        try:
            load.cuda()
        except GpuUnavailable as error:  # whose advice is for who has a tensor
            todo = "run it on a machine with NVIDIA's GPUs; 'mooncake topology' shows what this one has"
            raise GpuUnavailable(detail=error.fields["detail"], todo=todo) from None
        try:
            self._torch = importlib.import_module("torch")
        except ImportError:
            raise PackageMissing(what="'bench gpu'", package="PyTorch", install="torch") from None
        self.names = [f"cuda:{number}" for number in range(self._torch.cuda.device_count())]
        if not self.names:
            raise UsageError(detail=f"PyTorch {self._torch.__version__} sees no GPU here: install one built for CUDA")

    def same(self, tensor: Any, device: str, shape: tuple[int, int], expected: memoryview) -> bool:
        """See ``Gpus``."""
        torch = self._torch
        if tensor.device != torch.device(device) or tuple(tensor.shape) != shape:
            return False
        wanted = torch.frombuffer(expected, dtype=torch.uint8).to(device)
        return bool(torch.equal(tensor.contiguous().view(torch.uint8).reshape(-1), wanted))

    def settle(self) -> None:
        """See ``Gpus``."""
        for name in self.names:
            self._torch.cuda.synchronize(name)
        self._torch.cuda.empty_cache()


@dataclass(frozen=True)
class GpuPlan:
    """What is to be measured.

    ``devices`` empty means all GPUs, or the only one twice; ``connections`` 0 means as many as suit.
    """

    size: int
    devices: tuple[str, ...] = ()
    layouts: tuple[str, ...] = LAYOUTS
    rounds: int = 5
    agents: int = 1
    transport: str = "tcp"
    connections: int = 0
    directory: Path | None = None

    def check(self, gpus: Gpus) -> tuple[str, ...]:
        """The devices. Raises ``UsageError`` for a plan that cannot be carried out with these GPUs."""
        strange = [layout for layout in self.layouts if layout not in LAYOUTS]
        if strange or not self.layouts:
            raise UsageError(detail=f"--layouts: {', '.join(strange) or 'nothing'!r} is none of {', '.join(LAYOUTS)}")
        for option, value, most in (("--rounds", self.rounds, MAX_ROUNDS), ("--agents", self.agents, MAX_AGENTS)):
            if not 1 <= value <= most:
                raise UsageError(detail=f"{option}: {value} is not between 1 and {most}")
        unknown = [device for device in self.devices if device not in gpus.names]
        if unknown:
            raise UsageError(detail=f"--devices: {unknown[0]!r} is none of {', '.join(gpus.names)}")
        devices = self.devices or (tuple(gpus.names) if len(gpus.names) > 1 else (gpus.names[0],) * 2)
        if SHARD in self.layouts and ROWS % len(devices):
            raise UsageError(
                detail=f"{len(devices)} devices cannot share the tensors of this bench: give another number"
            )
        return devices


@dataclass(frozen=True)
class GpuRow:
    """A layout's figures. ``received`` is what agents sent over TCP, in times the object; None by other transports."""

    layout: str
    devices: int
    bytes: int
    seconds: list[float]
    cpu_seconds: list[float]
    received: float | None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def to_json(self, one: float | None) -> dict[str, Any]:
        """JSON types; ``one`` is the median of all to one GPU."""
        return {
            "layout": self.layout,
            "devices": self.devices,
            "seconds": round(self.median, 4),
            "least_seconds": round(min(self.seconds), 4),
            "most_seconds": round(max(self.seconds), 4),
            "gbps": round(self.bytes / self.median / 1e9, 3),
            "times_one": round(self.median / one, 3) if one else None,
            "received_times": round(self.received, 3) if self.received is not None else None,
            "cpu_seconds_per_gb": round(statistics.median(self.cpu_seconds) / self.bytes * 1e9, 3),
        }


@dataclass
class GpuResult:
    """What came of a plan."""

    plan: GpuPlan
    devices: tuple[str, ...]
    bytes: int
    peers: list[list[int]]
    most_pinned_bytes: int = 0
    rows: list[GpuRow] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON types. ``peers`` are groups of GPUs that copy to one another, by their numbers."""
        one = next((row.median for row in self.rows if row.layout == ONE), None)
        return {
            "bytes": self.bytes,
            "devices": list(self.devices),
            "peers": self.peers,
            "agents": self.plan.agents,
            "transport": self.plan.transport,
            "rounds": self.plan.rounds,
            "verified": True,
            "most_pinned_bytes": self.most_pinned_bytes,
            "rows": [row.to_json(one) for row in self.rows],
        }


def measure(plan: GpuPlan, gpus: Gpus, say: Callable[[str], None]) -> GpuResult:
    """Carry out a plan; whatever was made is gone when it returns or raises.

    Raises ``UsageError``, ``StorageError`` where there is no room, ``TensorsDiffer`` for wrong bytes on a GPU,
    ``MetadataUnavailable`` and ``AgentStartFailed``, and as ``P2PStore.load_tensors``.
    """
    devices = plan.check(gpus)
    directory = plan.directory or directory_in_memory(plan.size)
    with contextlib.ExitStack() as stack:
        try:
            made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mooncake-gpu-", dir=directory)))
            (made / "checkpoint").mkdir()
            checkpoint = Checkpoint(made / "checkpoint", plan.size)
        except OSError as error:
            raise StorageError(path=str(directory or tempfile.gettempdir()), detail=error.strerror or error) from None
        say(f"wrote {checkpoint.size} bytes in {len(checkpoint.paths)} files")
        url, agents = stack.enter_context(_agents(plan, made, say))
        for agent in agents:
            source = str(made / "checkpoint")
            result_of(agent.client.register(source, NAME, chunk_size=None, hash_name=DEFAULT_HASH, force=False))
        secret = own_secret(environ=environment(agents[0].directory))
        store = P2PStore(url, node="bench-gpu", secret=secret, connections=plan.connections)
        return _Run(plan, gpus, devices, checkpoint, agents, stack.enter_context(store)).run(say)


@contextlib.contextmanager
def _agents(plan: GpuPlan, made: Path, say: Callable[[str], None]) -> Iterator[tuple[str, list[BenchAgent]]]:
    """An etcd and agents, up; and down, in any case."""
    places = Loopback()
    processes: list[Process] = []
    agents: list[BenchAgent] = []
    try:
        etcd = started_etcd(places, made)
        processes.append(etcd)
        agents += [BenchAgent(number, places, made, etcd.url, AGENT) for number in range(plan.agents)]
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.wait()
        say(f"{len(agents)} {'agent is' if len(agents) == 1 else 'agents are'} up")
        yield etcd.url, agents
    finally:
        end([*(agent.process for agent in agents if agent.process is not None), *processes])


class _Run:
    def __init__(
        self,
        plan: GpuPlan,
        gpus: Gpus,
        devices: tuple[str, ...],
        checkpoint: Checkpoint,
        agents: Sequence[BenchAgent],
        store: P2PStore,
    ) -> None:
        self._plan = plan
        self._gpus = gpus
        self._devices = devices
        self._checkpoint = checkpoint
        self._agents = agents
        self._store = store

    def run(self, say: Callable[[str], None]) -> GpuResult:
        plan, cuda = self._plan, load.cuda()
        numbers = [int(device.partition(":")[2] or 0) for device in self._devices]
        groups = [list(group) for group in cuda.peers.groups(numbers)]
        result = GpuResult(plan, self._devices, self._checkpoint.size, groups)
        layouts = list(dict.fromkeys(plan.layouts))
        taken: dict[str, list[tuple[float, float, int]]] = {layout: [] for layout in layouts}
        for number in range(plan.rounds + 1):
            order = random.sample(layouts, len(layouts))
            for layout in order:
                found = self._once(layout)
                if number:
                    taken[layout].append(found)
                say(f"round {number}, {layout}: {found[0]:.3f} s" + ("" if number else ", which does not count"))
        for layout, all_of_it in taken.items():
            received = statistics.fmean(sent for _, _, sent in all_of_it) / self._checkpoint.size
            result.rows.append(
                GpuRow(
                    layout,
                    1 if layout == ONE else len(self._devices),
                    self._checkpoint.size,
                    [seconds for seconds, _, _ in all_of_it],
                    [spent for _, spent, _ in all_of_it],
                    received if plan.transport == "tcp" else None,
                )
            )
        result.most_pinned_bytes = cuda.most_pinned_bytes
        return result

    def _once(self, layout: str) -> tuple[float, float, int]:
        """Seconds, seconds of this process's processors, and bytes that agents sent over TCP."""
        self._gpus.settle()
        sent, spent, began = self._sent(), time.process_time(), time.monotonic()
        if layout == ONE:
            devices = self._devices[:1]
            found = [self._store.load_tensors(NAME, device=devices[0], transport=self._plan.transport)]
        else:
            devices = self._devices
            found = self._store.load_tensors(NAME, devices=devices, layout=layout, transport=self._plan.transport)
        seconds, spent = time.monotonic() - began, time.process_time() - spent
        self._compare(layout, devices, found)
        return seconds, spent, self._sent() - sent

    def _sent(self) -> int:
        return sum(agent.bytes_sent() for agent in self._agents)

    def _compare(self, layout: str, devices: Sequence[str], found: Sequence[dict[str, Any]]) -> None:
        """See that all came, and nothing else. Raises ``TensorsDiffer``."""
        ranks = len(devices) if layout == SHARD else 1
        for rank in range(ranks):
            mine = list(zip(devices, found, strict=True))
            for name, shape, expected in self._checkpoint.slices(rank, ranks):
                for device, tensors in mine[rank : rank + 1] if ranks > 1 else mine:
                    if not self._gpus.same(tensors[name], device, shape, expected):
                        raise TensorsDiffer(tensor=name, device=device, layout=layout)
