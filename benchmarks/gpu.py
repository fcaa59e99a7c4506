"""Shards into one GPU: ours over tcp and local, beside what others do, in one run, interleaved and verified.

::

    python benchmarks/gpu.py [--gib 8] [--shards 8] [--rounds 5] [--connections 2 4 8 12] [--directory /dev/shm]

Several GPUs, and one of them beside all, are what ``mooncake bench gpu`` measures.

An object of safetensors shards lies in ``--directory`` and is served by a process of its own here. Each round takes
every contender once, in a new random order; a round before them is not counted. Contenders:

- ``get_into TRANSPORT xN``: a buffer of the GPU for each shard, over N connections
- ``load_tensors TRANSPORT xN``: the same by ``load_tensors(device="cuda:0")``, where that takes a GPU
- ``get, then load_file``: a get over tcp to ``--directory``, then safetensors' ``load_file`` of each shard
- ``load_file``, ``fastsafetensors``, ``runai streamer``: of the local files, unverified, where they are installed

After each, every byte on the GPU is compared with the files. Printed are medians of GB/s (1e9), the processor seconds
per GB of the receiving and the serving process, the most memory that we pinned, and what could not be run, and why.
``--fake`` does it on a GPU that there is not, with ours alone: it shows that this script works, and no speed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from counts import as_amount, as_count

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cuda import load
from engine.cuda.fake_driver import FakeDriver
from p2pstore import P2PStore
from p2pstore.agent.options import secret_for
from p2pstore.metadata.urls import open_store
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.objects.choices import DEFAULT_HASH

NAME = "bench/shards"
MIB = 1 << 20
BLOCK = 16 * MIB
TENSORS = 4
"""In a shard."""
WAIT_SECONDS = 600.0

Contender = Callable[[], Callable[[], bool]]
"""Does it, and returns what says whether all is right, which is not timed."""


def write_shards(directory: Path, size: int, shards: int) -> dict[str, int]:
    """Files of safetensors in which no chunk is like another; their sizes by name."""
    block = os.urandom(BLOCK)
    twice = memoryview(block + block)
    made = {}
    each = size // shards // TENSORS // 2 * 2
    for number in range(shards):
        header: dict[str, Any] = {}
        for tensor in range(TENSORS):
            offsets = [tensor * each, (tensor + 1) * each]
            name = f"model.layers.{number}.weight.{tensor}"
            header[name] = {"dtype": "BF16", "shape": [each // 2], "data_offsets": offsets}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = directory / f"model-{number + 1:05}-of-{shards:05}.safetensors"
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for at in range(0, each * TENSORS, BLOCK):
                turn = (number * 7919 + at // BLOCK * 4099) % BLOCK
                file.write(twice[turn : turn + min(BLOCK, each * TENSORS - at)])
        made[path.name] = path.stat().st_size
    return made


async def serve(directory: Path) -> None:
    """The other process, with what an agent has: registers, says where it is, and waits until its input ends."""
    secret = secret_for("127.0.0.1", None, insecure=False)
    options = NodeOptions(name="source", local_socket=directory.parent / "socket" / "local", secret=secret)
    node = await Node.start(options, open_store("memory://gpu-bench"))
    try:
        await node.register(directory, NAME, hash_name=DEFAULT_HASH)
        print(node.record.control, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await node.close()


@contextlib.contextmanager
def source(directory: Path) -> Iterator[tuple[int, str]]:
    """A process that serves the shards: its number, and its address."""
    command = [sys.executable, __file__, "--serve", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            control = process.stdout.readline().strip()
            if not control:
                raise SystemExit("the serving process has ended")
            yield process.pid, control
        finally:
            process.stdin.close()
            process.wait(WAIT_SECONDS)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class RealGpu:
    """PyTorch's first GPU, with a copy of the shards to compare with."""

    def __init__(self, directory: Path, sizes: dict[str, int]) -> None:
        import torch  # noqa: PLC0415 - where it is installed

        self.torch = torch
        self.expected = {}
        for name, size in sizes.items():
            file = torch.from_file(str(directory / name), size=size, dtype=torch.uint8)
            self.expected[name] = file.to("cuda:0")
        self._rooms = {name: torch.empty(size, dtype=torch.uint8, device="cuda:0") for name, size in sizes.items()}

    def rooms(self) -> dict[str, Any]:
        """Buffers with wrong bytes."""
        for room in self._rooms.values():
            room.fill_(0xEE)
        self.torch.cuda.synchronize()
        return self._rooms

    def right(self) -> bool:
        return all(self.torch.equal(self._rooms[name], each) for name, each in self.expected.items())

    def right_tensors(self, tensors: dict[str, Any]) -> bool:
        """Whether these tensors, by name, are all and hold what the shards do."""
        missing = set(tensors)
        for each in self.expected.values():
            length = int.from_bytes(bytes(each[:8].cpu().tolist()), "little")
            header = json.loads(bytes(each[8 : 8 + length].cpu().tolist()))
            for name, entry in header.items():
                low, high = (8 + length + at for at in entry["data_offsets"])
                found = tensors[name]
                if found.device.type != "cuda" or not self.torch.equal(found.view(self.torch.uint8), each[low:high]):
                    return False
                missing.discard(name)
        return not missing

    def forget(self) -> None:
        self.torch.cuda.synchronize()
        self.torch.cuda.empty_cache()


class FakeGpu:
    """No GPU at all."""

    def __init__(self, directory: Path, sizes: dict[str, int]) -> None:
        self.driver = FakeDriver()
        load.use(self.driver)
        self._files = {name: (directory / name).read_bytes() for name in sizes}
        self._at: dict[str, int] = {}

    def rooms(self) -> dict[str, Any]:
        made = {}
        for name, data in self._files.items():
            self._at[name] = self.driver.allocate(bytes(len(data)))
            said = {"shape": (len(data),), "typestr": "|u1", "data": (self._at[name], False), "version": 3}
            made[name] = SimpleNamespace(__cuda_array_interface__=said)
        return made

    def right(self) -> bool:
        return all(self.driver.read(self._at[name]) == data for name, data in self._files.items())

    def forget(self) -> None:
        for address in self._at.values():
            self.driver.free(address)
        self._at.clear()


class Bench:
    """All contenders that can run here, by name, and why others cannot."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, control: str) -> None:
        self.contenders: dict[str, Contender] = {}
        self.left_out: dict[str, str] = {}
        self._directory = directory
        self._control = control
        self._sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
        self.gpu: Any = (FakeGpu if arguments.fake else RealGpu)(directory, self._sizes)
        self._stack = contextlib.ExitStack()
        for count in arguments.connections:
            store = P2PStore(f"memory://gpu-bench-{count}", node=f"getter-{count}", connections=count)
            self._stack.enter_context(store)
            for transport in ("tcp", "local"):
                self._ours(store, transport, count, fake=arguments.fake)
        if not arguments.fake:
            self._theirs(self._stack.enter_context(P2PStore("memory://gpu-bench-get", node="getter", connections=4)))

    def close(self) -> None:
        self._stack.close()

    def _ours(self, store: P2PStore, transport: str, count: int, *, fake: bool) -> None:
        def get_into() -> Callable[[], bool]:
            store.get_into(NAME, self._rooms, transport=transport, peers=[self._control])
            return self.gpu.right

        def load_tensors() -> Callable[[], bool]:
            made = store.load_tensors(NAME, device="cuda:0", transport=transport, peers=[self._control])
            return lambda: self.gpu.right_tensors(made)

        self.contenders[f"get_into {transport} x{count}"] = get_into
        if not fake:
            self.contenders[f"load_tensors {transport} x{count}"] = load_tensors

    def _theirs(self, store: P2PStore) -> None:
        torch = self.gpu.torch
        paths = [str(self._directory / name) for name in self._sizes]

        def load_files(found: list[str]) -> Callable[[], bool]:
            from safetensors.torch import load_file  # noqa: PLC0415 - where it is installed

            tensors: dict[str, Any] = {}
            for path in found:
                tensors.update(load_file(path, device="cuda:0"))
            torch.cuda.synchronize()
            return lambda: self.gpu.right_tensors(tensors)

        def get_then_load() -> Callable[[], bool]:
            dest = self._directory.parent / "got"
            store.get(NAME, dest, transport="tcp", peers=[self._control], seed=False)
            check = load_files([str(dest / name) for name in self._sizes])
            return lambda: (check(), shutil.rmtree(dest))[0]

        def fastsafetensors() -> Callable[[], bool]:
            from fastsafetensors import SafeTensorsFileLoader  # noqa: PLC0415 - where it is installed

            loader = SafeTensorsFileLoader(None, "cuda:0", nogds=True)
            loader.add_filenames({0: paths})
            files = loader.copy_files_to_device()
            tensors = {name: files.get_tensor(name) for name in loader.get_keys()}
            torch.cuda.synchronize()

            def check() -> bool:
                right = self.gpu.right_tensors(tensors)
                tensors.clear()
                files.close()
                loader.close()
                return right

            return check

        def runai() -> Callable[[], bool]:
            from runai_model_streamer import SafetensorsStreamer  # noqa: PLC0415 - where it is installed

            tensors = {}
            with SafetensorsStreamer() as streamer:
                streamer.stream_files(paths)
                for name, tensor in streamer.get_tensors():
                    tensors[name] = tensor.to("cuda:0")
            torch.cuda.synchronize()
            return lambda: self.gpu.right_tensors(tensors)

        self.contenders |= {
            "get, then load_file": get_then_load,
            "load_file": lambda: load_files(paths),
            "fastsafetensors": fastsafetensors,
            "runai streamer": runai,
        }

    def prepare(self) -> None:
        """Before each: buffers that have something else in them."""
        self._rooms = self.gpu.rooms()

    def try_each(self) -> None:
        """The round that does not count; who cannot take part is left out."""
        for name, work in list(self.contenders.items()):
            self.prepare()
            try:
                check = work()
            except Exception as error:  # noqa: BLE001 - it is shown
                self.left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                del self.contenders[name]
                continue
            if not check():
                raise SystemExit(f"{name}: wrong bytes")
            del check
            self.gpu.forget()


def measure(bench: Bench, pid: int, rounds: int, total: int) -> dict[str, dict[str, Any]]:
    """Seconds of each round, and processor seconds a GB, by contender."""
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in bench.contenders}
    for _ in range(rounds):
        names = list(bench.contenders)
        random.shuffle(names)
        for name in names:
            bench.prepare()
            ours, theirs, began = time.process_time(), processor_seconds(pid), time.monotonic()
            check = bench.contenders[name]()
            seconds = time.monotonic() - began
            used = time.process_time() - ours, processor_seconds(pid) - theirs
            if not check():
                raise SystemExit(f"{name}: wrong bytes")
            del check
            bench.gpu.forget()
            taken[name].append((seconds, *used))
    gb = total / 1e9
    return {
        name: {
            "gb_per_second": round(gb / statistics.median(each[0] for each in found), 2),
            "least": round(gb / max(each[0] for each in found), 2),
            "most": round(gb / min(each[0] for each in found), 2),
            "receiver_cpu_seconds_per_gb": round(statistics.median(each[1] for each in found) / gb, 3),
            "source_cpu_seconds_per_gb": round(statistics.median(each[2] for each in found) / gb, 3),
        }
        for name, found in taken.items()
    }


def report(result: dict[str, Any]) -> None:
    print(
        f"{result['bytes'] / 1e9:.2f} GB in {result['shards']} shards, medians of {result['rounds']} rounds, verified"
    )
    print(f"{'':<28}{'GB/s':>8}{'least':>8}{'most':>8}{'CPU s/GB':>10}{'source':>8}")
    for name, found in sorted(result["contenders"].items(), key=lambda pair: -pair[1]["gb_per_second"]):
        print(
            f"{name:<28}{found['gb_per_second']:>8.2f}{found['least']:>8.2f}{found['most']:>8.2f}"
            f"{found['receiver_cpu_seconds_per_gb']:>10.3f}{found['source_cpu_seconds_per_gb']:>8.3f}"
        )
    print(f"pinned at most: {result['most_pinned_bytes'] / MIB:.0f} MiB")
    for name, why in result["left_out"].items():
        print(f"left out: {name}: {why}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=as_amount, default=8.0)
    parser.add_argument("--shards", type=as_count, default=8)
    parser.add_argument("--rounds", type=as_count, default=5)
    parser.add_argument("--connections", type=as_count, nargs="+", default=[2, 4, 8, 12])
    parser.add_argument("--directory", default="/dev/shm")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(Path(arguments.serve)))
        return
    with tempfile.TemporaryDirectory(prefix="mooncake-gpu-", dir=arguments.directory) as scratch:
        directory = Path(scratch, "shards")
        directory.mkdir()
        os.environ["XDG_STATE_HOME"] = str(Path(scratch, "state"))
        total = sum(write_shards(directory, int(arguments.gib * (1 << 30)), arguments.shards).values())
        with source(directory) as (pid, control):
            bench = Bench(arguments, directory, control)
            try:
                bench.try_each()
                found = measure(bench, pid, arguments.rounds, total)
                cuda = load.in_use()
                result = {
                    "bytes": total,
                    "shards": arguments.shards,
                    "rounds": arguments.rounds,
                    "contenders": found,
                    "most_pinned_bytes": cuda.most_pinned_bytes if cuda is not None else 0,
                    "left_out": bench.left_out,
                }
            finally:
                bench.close()
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        report(result)


if __name__ == "__main__":
    main()
