"""How fast programs that read the hub get an object from an agent that has none of it, beside ``get``, in one run.

::

    python benchmarks/hub.py [--mib 1024] [--shards 4] [--rounds 4] [--json]

Everything lies in /dev/shm, so that no disk is measured, and moves over TCP. In each round every contender runs once,
in a new random order, each time with an agent that was just started: ``get``; curl, once a shard and all at once, which
throws away what it reads (*cold*); the same again (*warm*: all of it lies in the agent's store); ``hf download``, cold
and warm, where huggingface_hub is installed; and the two clients from ``plain_hub.py``, which sends files and does
nothing else: what of their time is their own. The seconds are those of the whole commands. The hashes that the hub's
clients are told are found out before, as they are for all nodes but the first: what that costs stands beside. Printed
are medians, and get's seconds over each other's; and what a GB took of the processors: of all, of the client alone, and
of the node that it asks.
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
from counts import as_count

NAME = "org/bench"
AIM = 0.9
"""Of ``get``'s rate, cold, or of what the client does with plain files where that is less."""

BLOCK = 16 << 20
HERE = Path(__file__).parent

ROWS = (
    "get",
    *("curl, plain", "curl, cold", "curl, warm"),
    *("hf download, plain", "hf download, cold", "hf download, warm"),
)
"""As they are printed: each contender after what its client can do at all."""


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
        command = [sys.executable, str(HERE / "plain_hub.py"), str(self._model)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        self._plain = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._plain.stdout is not None
        self.plain = {"hf_endpoint": self._plain.stdout.readline().strip(), "pid": self._plain.pid}

    def close(self) -> None:
        self._plain.kill()
        self._plain.wait()
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

    def timed(self, work: Callable[[dict[str, Any]], None], *, plain: bool, again: bool) -> list[dict[str, float]]:
        """What a contender took with a fresh agent, and the second time; or what it took with the plain server."""
        if plain:
            found = self._once(work, self.plain)
            shutil.rmtree(self._directory / "got", ignore_errors=True)
            shutil.rmtree(self._directory / "hf", ignore_errors=True)
            return [found]
        with self.fresh() as status:
            found = [self._once(work, status)]
            if again:
                shutil.rmtree(self._directory / "got", ignore_errors=True)
                found.append(self._once(work, status))
        return found

    def _once(self, work: Callable[[dict[str, Any]], None], server: dict[str, Any]) -> dict[str, float]:
        pids = [self._first["pid"], server["pid"]]
        everything, node, client = processor_seconds(pids), processor_seconds(pids[1:]), processor_seconds([])
        began = time.monotonic()
        work(server)
        seconds, after = time.monotonic() - began, processor_seconds([])
        return {
            "seconds": seconds,
            "processor": processor_seconds(pids) - everything,
            "client": after - client,
            "node": processor_seconds(pids[1:]) - node - (after - client),
        }


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    contenders: dict[str, tuple[Callable[[dict[str, Any]], None], bool, bool]] = {
        "get": (bench.get, False, False),
        "curl": (bench.curl, False, True),
        "curl, plain": (bench.curl, True, False),
    }
    if Path(sys.executable).with_name("hf").exists():
        contenders |= {"hf download": (bench.hf, False, True), "hf download, plain": (bench.hf, True, False)}
    bench.find_hashes()
    rows: dict[str, list[dict[str, float]]] = {}
    of_most: dict[str, list[float]] = {}
    for _ in range(rounds):
        this: dict[str, dict[str, float]] = {}
        for name in random.sample(list(contenders), len(contenders)):
            work, plain, again = contenders[name]
            found = bench.timed(work, plain=plain, again=again)
            names = [f"{name}, cold", f"{name}, warm"] if again else [name]
            this |= dict(zip(names, found, strict=True))
        for name, row in this.items():
            rows.setdefault(name, []).append({**row, "of_get": this["get"]["seconds"] / row["seconds"]})
        for name in ("curl", "hf download"):
            if f"{name}, cold" in this:
                least = max(this["get"]["seconds"], this[f"{name}, plain"]["seconds"])
                of_most.setdefault(name, []).append(least / this[f"{name}, cold"]["seconds"])

    def median(name: str, key: str) -> float:
        return statistics.median(row[key] for row in rows[name])

    gb = bench.size / 1e9
    order = [name for name in ROWS if name in rows]
    return {
        "bytes": bench.size,
        "rounds": rounds,
        "hashing_seconds": round(bench.hashing, 3),
        "seconds": {name: round(median(name, "seconds"), 3) for name in order},
        "of_get": {name: round(median(name, "of_get"), 3) for name in order},
        "processor_seconds_a_gb": {
            key: {name: round(median(name, column) / gb, 2) for name in order}
            for key, column in (("all", "processor"), ("client", "client"), ("node", "node"))
        },
        "of_most": {name: round(statistics.median(values), 3) for name, values in of_most.items()},
        "aim": AIM,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=as_count, default=1024)
    parser.add_argument("--shards", type=as_count, default=4)
    parser.add_argument("--rounds", type=as_count, default=4)
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
    print(f"{'':18} {'seconds':>8} {'of get':>7}   CPU s/GB: {'all':>6} {'client':>6} {'node':>6}")
    busy = found["processor_seconds_a_gb"]
    for name, value in found["seconds"].items():
        columns = " ".join(f"{busy[key][name]:6.2f}" for key in ("all", "client", "node"))
        print(f"{name:18} {value:8.2f} {found['of_get'][name]:7.2f}             {columns}")
    for name, most in found["of_most"].items():
        print(f"{name}, cold: {most} of the slower of get and {name} with plain files; aim {AIM}")


if __name__ == "__main__":
    main()
