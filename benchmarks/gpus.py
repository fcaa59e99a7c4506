"""A checkpoint into one GPU, and into several of the host: the same to all, and a rank's slices to each. Verified.

::

    python benchmarks/gpus.py [--gib 8] [--devices 0,1] [--rounds 5] [--sources 2] [--framework driver] [--json]

It needs no etcd, no PyTorch and no command line of ours: tensors lie in memory of CUDA's driver, or with
``--framework torch`` in PyTorch's. ``mooncake bench gpu`` is the same with agents and an etcd, for users.

Safetensors files lie in ``--directory``, and are served by ``--sources`` processes of this machine. Each round takes
every way once, in a new random order; a round before them is not counted. Ways:

- ``one``: all to the first GPU, by ``device=``
- ``replicate``, ``shard``: to all GPUs, in one process, by ``devices=``
- ``replicate by processes``, ``shard by processes``: a process a GPU, as torchrun starts them, by ``share="host"``
- ``replicate apart``, ``shard apart``: the same processes, each with a get of its own

After each, all bytes on all GPUs are compared with the files. Printed are medians of seconds, of GB/s of the object,
of the time over that of ``one``; what the sources sent over TCP, in times the object; and processor seconds a GB of who
receives. ``--fake`` does it on GPUs that there are not: it shows that this script works, and no speed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pickle
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from counts import as_amount, as_count, as_count_or_none
from xxhash import xxh3_128_digest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cuda import load
from engine.cuda.fake_driver import FakeDriver
from p2pstore import P2PStore
from p2pstore.agent.options import secret_for
from p2pstore.bench.gpu import TorchGpus
from p2pstore.bench.gpu_checkpoint import Checkpoint
from p2pstore.bench.gpu_memory import DriverGpus
from p2pstore.calls import given
from p2pstore.metadata.urls import open_store
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.objects.choices import DEFAULT_HASH

NAME = "bench/gpus"
ONE = "one"
LAYOUTS = ("replicate", "shard")
BY_PROCESSES = " by processes"
APART = " apart"
WAIT_SECONDS = 600.0


class Child:
    """A process of this script's that is told one thing a line, and answers with a line of JSON."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        command = [sys.executable, __file__, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
        )

    def tell(self, **said: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(said) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args[2:4])}: the process has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, **said: Any) -> dict[str, Any]:
        self.tell(**said)
        return self.hear()

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def answer(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def told() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


async def serve(directory: Path, number: int) -> None:
    """A source: says where it is, and how much it has sent whenever it is asked."""
    secret = secret_for("127.0.0.1", None, insecure=False)
    socket = directory.parent / f"socket-{number}" / "local"
    options = NodeOptions(name=f"source-{number}", local_socket=socket, secret=secret)
    node = await Node.start(options, open_store(f"memory://gpus-{number}"))
    try:
        await node.register(directory, NAME, hash_name=DEFAULT_HASH)
        answer(control=node.record.control)
        while await asyncio.to_thread(sys.stdin.readline):
            answer(sent=node.engine.bytes_sent)
    finally:
        await node.close()


def receive(arguments: argparse.Namespace) -> None:
    """Who has the GPUs: loads as it is told, and compares."""
    if arguments.fake:
        load.use(FakeDriver(max(arguments.numbers) + 1, shared=Path(arguments.fake_memory)))
    gpus: Any
    if arguments.framework == "torch":
        gpus = TorchGpus()
    else:
        gpus = DriverGpus(load.cuda())
        given.framework_of = lambda _, device, *__: gpus.framework(device)  # type: ignore[assignment,return-value]
    devices = [f"cuda:{number}" for number in arguments.numbers]
    checkpoint: Checkpoint = pickle.loads(Path(arguments.receive).read_bytes())  # which this script wrote
    with P2PStore("memory://gpus-receiver", node=f"receiver-{os.getpid()}", connections=arguments.connections) as store:
        answer(ready=True)
        expected = Expected(checkpoint, gpus)
        for order in told():
            found = once(store, expected, devices, order)
            gpus.settle()
            answer(right=found)


class Expected:
    """What each rank's tensors are to be. Of memory of the driver's a digest is enough, which is made once."""

    def __init__(self, checkpoint: Checkpoint, gpus: Any) -> None:
        self._checkpoint = checkpoint
        self._gpus = gpus
        self._known: dict[tuple[int, int], list[tuple[str, tuple[int, int], bytes]]] = {}

    def right(self, tensors: dict[str, Any], device: str, rank: int, ranks: int) -> bool:
        gpus, slices = self._gpus, self._checkpoint.slices
        if not isinstance(gpus, DriverGpus):
            return all(gpus.same(tensors[name], device, shape, data) for name, shape, data in slices(rank, ranks))
        if (rank, ranks) not in self._known:
            self._known[rank, ranks] = [(n, shape, xxh3_128_digest(data)) for n, shape, data in slices(rank, ranks)]
        return all(gpus.digest(tensors[n], device, shape) == digest for n, shape, digest in self._known[rank, ranks])


def once(store: P2PStore, expected: Expected, devices: Sequence[str], order: dict[str, Any]) -> bool:
    """One load, of which the seconds are told; whether all of it is right."""
    way, how = order["way"], {"transport": order["transport"], "peers": order["peers"]}
    layout = way.partition(" ")[0]
    spent = time.process_time()
    mine: list[tuple[str, dict[str, Any], int, int]] = []  # GPU, tensors, rank and ranks
    if way == ONE:
        mine.append((devices[0], store.load_tensors(NAME, device=devices[0], **how), 0, 1))
    elif way != layout:
        me, ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if way.endswith(APART):
            how["rank"] = (me, ranks) if layout == "shard" else None
        else:
            how |= {"share": "host", "layout": layout}
        found = store.load_tensors(NAME, device=devices[me], **how)
        mine.append((devices[me], found, *((me, ranks) if layout == "shard" else (0, 1))))
    else:
        loaded = store.load_tensors(NAME, devices=devices, layout=way, **how)
        ranks = len(devices) if way == "shard" else 1
        mine += [
            (device, tensors, rank % ranks, ranks)
            for rank, (device, tensors) in enumerate(zip(devices, loaded, strict=True))
        ]
    cuda = load.cuda()
    answer(cpu_seconds=time.process_time() - spent, most_pinned_bytes=cuda.most_pinned_bytes)
    return all(expected.right(tensors, device, rank, ranks) for device, tensors, rank, ranks in mine)


class Bench:
    """The processes, and what is to be taken."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments = arguments
        (scratch / "checkpoint").mkdir()
        (scratch / "memory").mkdir()
        os.environ["XDG_STATE_HOME"] = str(scratch / "state")
        self.checkpoint = Checkpoint(scratch / "checkpoint", int(arguments.gib * (1 << 30)))
        self.children: list[Child] = []
        directory = str(scratch / "checkpoint")
        self.sources = [self._child("--serve", directory, str(number)) for number in range(arguments.sources)]
        self.controls = [source.hear()["control"] for source in self.sources]
        common = ["--devices", arguments.devices, "--framework", arguments.framework]
        common += ["--connections", str(arguments.connections), "--fake-memory", str(scratch / "memory")]
        common += ["--fake"] if arguments.fake else []
        described = scratch / "checkpoint.pickle"
        described.write_bytes(pickle.dumps(self.checkpoint))
        whole = [self._child("--receive", str(described), *common)]
        size = len(arguments.numbers)
        run = {"LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(os.getpid())}
        each = [self._child("--receive", str(described), *common, LOCAL_RANK=str(rank), **run) for rank in range(size)]
        self.ways = dict.fromkeys([ONE, *LAYOUTS], whole)
        self.ways |= {layout + how: each for how in (BY_PROCESSES, APART) for layout in LAYOUTS}
        self.ways = {way: found for way, found in self.ways.items() if not arguments.ways or way in arguments.ways}
        for child in [*whole, *each]:
            child.hear()

    def _child(self, *arguments: str, **variables: str) -> Child:
        child = Child(*arguments, **variables)
        self.children.append(child)
        return child

    def close(self) -> None:
        for child in reversed(self.children):
            child.close()

    def sent(self) -> int:
        return sum(source.ask()["sent"] for source in self.sources)

    def once(self, way: str) -> dict[str, float]:
        """Seconds until all have it, what was sent, and processor seconds of all who receive."""
        receivers = self.ways[way]
        before, began = self.sent(), time.monotonic()
        for child in receivers:
            child.tell(way=way, transport=self.arguments.transport, peers=self.controls)
        found = [child.hear() for child in receivers]
        seconds = time.monotonic() - began
        for child in receivers:
            if not child.hear()["right"]:
                raise SystemExit(f"{way}: wrong bytes")
        return {
            "seconds": seconds,
            "sent": self.sent() - before,
            "cpu_seconds": sum(each["cpu_seconds"] for each in found),
            "pinned": max(each["most_pinned_bytes"] for each in found),
        }

    def run(self) -> dict[str, Any]:
        taken: dict[str, list[dict[str, float]]] = {way: [] for way in self.ways}
        for number in range(self.arguments.rounds + 1):
            for way in random.sample(list(self.ways), len(self.ways)):
                found = self.once(way)
                if number:
                    taken[way].append(found)
                print(f"round {number}, {way}: {found['seconds']:.3f} s", file=sys.stderr)
        size, one = self.checkpoint.size, statistics.median(each["seconds"] for each in taken[ONE])
        return {
            "bytes": size,
            "devices": self.arguments.numbers,
            "sources": self.arguments.sources,
            "rounds": self.arguments.rounds,
            "framework": self.arguments.framework,
            "ways": {way: summary(found, size, one) for way, found in taken.items()},
        }


def summary(found: Sequence[dict[str, float]], size: int, one: float) -> dict[str, Any]:
    seconds = statistics.median(each["seconds"] for each in found)
    return {
        "seconds": round(seconds, 3),
        "least": round(min(each["seconds"] for each in found), 3),
        "most": round(max(each["seconds"] for each in found), 3),
        "gb_per_second": round(size / seconds / 1e9, 2),
        "times_one": round(seconds / one, 3),
        "received_times": round(max(each["sent"] for each in found) / size, 4),
        "cpu_seconds_per_gb": round(statistics.median(each["cpu_seconds"] for each in found) / size * 1e9, 3),
        "most_pinned_mib": round(max(each["pinned"] for each in found) / (1 << 20)),
    }


def report(result: dict[str, Any]) -> None:
    print(f"{result['bytes'] / 1e9:.2f} GB, GPUs {result['devices']}, medians of {result['rounds']} rounds, verified")
    print(f"{'':<24}{'s':>8}{'least':>8}{'most':>8}{'GB/s':>8}{'x one':>8}{'received':>10}{'CPU s/GB':>10}{'MiB':>7}")
    for way, found in result["ways"].items():
        print(
            f"{way:<24}{found['seconds']:>8.3f}{found['least']:>8.3f}{found['most']:>8.3f}{found['gb_per_second']:>8.2f}"
            f"{found['times_one']:>8.3f}{found['received_times']:>10.4f}{found['cpu_seconds_per_gb']:>10.3f}"
            f"{found['most_pinned_mib']:>7}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=as_amount, default=8.0)
    parser.add_argument("--devices", default="0,1", help="numbers of GPUs, one perhaps twice")
    parser.add_argument("--rounds", type=as_count, default=5)
    parser.add_argument("--ways", default="", help="some of them alone, joined by commas; one is always among them")
    parser.add_argument("--sources", type=as_count, default=2)
    parser.add_argument("--connections", type=as_count_or_none, default=0, help="to each source; 0: as many as suit")
    parser.add_argument("--transport", default="tcp")
    parser.add_argument("--framework", choices=["driver", "torch"], default="driver")
    parser.add_argument("--directory", default="/dev/shm")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--fake-memory", default="", help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.ways = [ONE, *arguments.ways.split(",")] if arguments.ways else []
    arguments.numbers = [int(number) for number in arguments.devices.split(",")]
    if arguments.serve:
        asyncio.run(serve(Path(arguments.serve[0]), int(arguments.serve[1])))
        return
    if arguments.receive:
        receive(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="mooncake-gpus-", dir=arguments.directory) as scratch:
        bench = Bench(arguments, Path(scratch))
        try:
            result = bench.run()
        finally:
            bench.close()
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        report(result)


if __name__ == "__main__":
    main()
