"""How fast programs that read the hub get an object from an agent that has none of it, beside ``get``, in one run.

::

    python benchmarks/hub.py [--mib 1024] [--shards 4] [--rounds 4] [--json]

Everything lies in /dev/shm, so that no disk is measured, and moves over TCP. In each round every contender runs once,
in a new random order, each time with an agent that was just started: ``get``; curl, once a shard and all at once, which
throws away what it reads (*cold*); the same again (*warm*: all of it lies in the agent's store); and ``hf download``,
where huggingface_hub is installed. The seconds are those of the whole commands. The hashes that the hub's clients are
told are found out before, as they are for all nodes but the first: what that costs stands beside. Printed are medians,
and get's seconds over each other's; and what a GB took of the processors.
"""

from __future__ import annotations

import argparse
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
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from copy_speed import mooncake, processor_seconds, run

NAME = "org/bench"
AIM = 0.9
"""Of ``get``'s rate, cold."""

BLOCK = 16 << 20


class Bench:
    """An agent with an object of several shards, and agents without, one after the other."""

    def __init__(self, directory: Path, size: int, shards: int) -> None:
        self.size = size
        self.hashing = 0.0
        self._directory = directory
        self._model = directory / "model"
        self._model.mkdir()
        self._shards = [f"model-{number}.safetensors" for number in range(shards)]
        for shard in self._shards:
            with (self._model / shard).open("wb") as file:
                for at in range(0, size // shards, BLOCK):
                    file.write(os.urandom(min(BLOCK, size // shards - at)))
        os.environ.update(MOONCAKE_TRANSPORT="tcp", MOONCAKE_HF_ENDPOINT="127.0.0.1:0")
        self._first = mooncake(directory / "a", "node", "start")
        mooncake(directory / "a", "register", str(self._model), "--name", NAME)

    def close(self) -> None:
        for home in (self._directory / "a", self._directory / "b"):
            command = [sys.executable, "-m", "mooncake_cli", "--home", str(home), "node", "stop"]
            subprocess.run(command, capture_output=True, check=False)

    def find_hashes(self) -> None:
        """Have the first agent read each shard for the name by which the hub's clients know it."""
        began = time.monotonic()
        for shard in self._shards:
            while True:
                url = f"{self._first['hf_endpoint']}/{NAME}/resolve/main/{shard}"
                try:
                    urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60).close()
                    break
                except urllib.error.HTTPError as error:
                    if error.code != 429:
                        raise
        self.hashing = time.monotonic() - began

    @contextlib.contextmanager
    def fresh(self) -> Iterator[dict[str, Any]]:
        """An agent that has nothing."""
        home = self._directory / "b"
        try:
            yield mooncake(home, "--metadata", self._first["metadata"], "node", "start")
        finally:
            mooncake(home, "node", "stop")
            for place in (home, self._directory / "got", self._directory / "hf"):
                shutil.rmtree(place, ignore_errors=True)

    def get(self, _: dict[str, Any]) -> None:
        mooncake(self._directory / "b", "get", NAME, str(self._directory / "got"))

    def curl(self, status: dict[str, Any]) -> None:
        command = ["curl", "-sS", "--fail", "--retry", "5", "--parallel", "--parallel-immediate"]
        for shard in self._shards:
            command += [f"{status['hf_endpoint']}/{NAME}/resolve/main/{shard}", "-o", "/dev/null"]
        run(*command)

    def hf(self, status: dict[str, Any]) -> None:
        environment = {
            **os.environ,
            "HF_ENDPOINT": status["hf_endpoint"],
            "HF_HOME": str(self._directory / "hf"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        program = str(Path(sys.executable).with_name("hf"))
        run(program, "download", NAME, "--local-dir", str(self._directory / "got"), env=environment)

    def timed(self, work: Callable[[dict[str, Any]], None], *, again: bool = False) -> dict[str, float]:
        """The seconds of a contender with a fresh agent, those of the second time too, and of the processors."""
        with self.fresh() as status:
            pids = [self._first["pid"], status["pid"]]
            busy, began = processor_seconds(pids), time.monotonic()
            work(status)
            found = {"seconds": time.monotonic() - began, "processor": processor_seconds(pids) - busy}
            if again:
                began = time.monotonic()
                work(status)
                found["again"] = time.monotonic() - began
        return found


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    contenders: dict[str, tuple[Callable[[dict[str, Any]], None], bool]] = {
        "get": (bench.get, False),
        "curl": (bench.curl, True),
    }
    if Path(sys.executable).with_name("hf").exists():
        contenders["hf download"] = (bench.hf, False)
    bench.find_hashes()
    seconds: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        this: dict[str, float] = {}
        for name in random.sample(list(contenders), len(contenders)):
            work, again = contenders[name]
            found = bench.timed(work, again=again)
            cold = f"{name}, cold" if again else name
            this[cold] = found["seconds"]
            processor.setdefault(cold, []).append(found["processor"])
            if again:
                this[f"{name}, warm"] = found["again"]
        for name, value in this.items():
            seconds.setdefault(name, []).append(value)
            ratios.setdefault(name, []).append(this["get"] / value)
    gb = bench.size / 1e9
    return {
        "bytes": bench.size,
        "rounds": rounds,
        "hashing_seconds": round(bench.hashing, 3),
        "seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "of_get": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "processor_seconds_a_gb": {n: round(statistics.median(v) / gb, 2) for n, v in processor.items()},
        "aim": AIM,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mooncake-hub-", dir="/dev/shm") as directory:
        bench = Bench(Path(directory), given.mib << 20, given.shards)
        try:
            found = measure(bench, given.rounds)
        finally:
            bench.close()
    if given.json:
        print(json.dumps(found))
        return
    print(
        f"{given.mib} MiB in {given.shards} files, {given.rounds} rounds; hashes found in {found['hashing_seconds']} s"
    )
    print(f"{'':14} {'seconds':>8} {'of get':>7} {'CPU s/GB':>9}")
    for name, value in found["seconds"].items():
        cpu = found["processor_seconds_a_gb"].get(name)
        print(f"{name:14} {value:8.2f} {found['of_get'][name]:7.2f} {cpu if cpu is not None else '':>9}")
    cold = found["of_get"]["curl, cold"]
    print(f"aim: {AIM} of get's rate, cold: {'met' if cold >= AIM else 'not met'} ({cold})")


if __name__ == "__main__":
    main()
