"""How fast our master of the pooled store is beside upstream's, in turn, each with upstream's own client.

::

    python benchmarks/master.py [--runs 1] [--rounds 16] [--seconds 0.1] [--only exist,put] [--state] [--json]

Both masters live all the while, and so does a client of each, which gives the memory that it puts into: no byte leaves
the client's process, so what is measured is the master and the way to it. Each figure is taken for both right after one
another, in random order, round by round. "wall" is what one client waits for a call, "processor" what the master's
process works for it, both in microseconds, and both the lower quartile of the rounds: whatever else the machine does
makes them longer, never shorter. A ratio above 1 means that ours takes less. Of several runs, each with new processes,
the medians are shown: which core a process was given matters, and stays so for long. ``--state`` has ours keep its
index on a disk, which upstream's does not. Needs the wheel.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from counts import as_amount, as_count

from p2pstore.bench.store.real_master import RealMaster

KIB, MIB = 1 << 10, 1 << 20
SEGMENT = 256 * MIB
BUFFER = 16 * MIB
VALUE = 4 * KIB
KEYS = 1024
"""Keys that are there, to be looked up and got."""

ROOM = 16_384
"""Values that are put before they are removed again, so that nothing is evicted."""

FIGURES = {
    "is_exist": ("exist", 1),
    "batch_is_exist of 128": ("exist", 128),
    "get": ("get", 1),
    "batch_get of 32": ("get", 32),
    "put": ("put", 1),
    "batch_put of 32": ("put", 32),
}
"""By name: what the client does, and with how many keys in a call."""


class Worker:
    """A process with one client of upstream's, and the master that it calls."""

    def __init__(self, master: str, pid: int) -> None:
        self._pid = pid
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", master],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "MC_FORCE_TCP": "1", "GLOG_minloglevel": "2"},
        )  # fmt: skip
        self._answer()

    def ask(self, what: str, batch: int, seconds: float) -> tuple[float, float]:
        """Seconds that a call takes, and that the master works for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps((what, batch, seconds)) + "\n")
        self._process.stdin.flush()
        assert self._answer() == ["begins"]
        before = worked(self._pid)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        calls, wall = map(float, self._answer())
        return wall / calls, (worked(self._pid) - before) / calls

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> list[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("answer "):
                return line.split()[1:]
        raise SystemExit("a client ended")


def worked(pid: int) -> float:
    """Seconds that all threads of a process have run."""
    times = (task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(each.read_text().split()[0]) for each in times) / 1e9


def work(master: str) -> None:
    """A worker's own process."""
    from mooncake.store import MooncakeDistributedStore  # noqa: PLC0415 - the parent does without

    store = MooncakeDistributedStore()
    if code := store.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, BUFFER, "tcp", "", master):
        raise SystemExit(f"setup: {code}")
    memory = (ctypes.c_ubyte * (128 * VALUE))()
    base = ctypes.addressof(memory)
    store.register_buffer(base, len(memory))
    there = [f"Llama-3.1-70B@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@{number:064x}" for number in range(KEYS)]
    for key in there:
        store.put_from(key, base, VALUE)
    print("answer ready", flush=True)
    for line in sys.stdin:
        what, batch, seconds = json.loads(line)
        call, tidy = calls(store, what, batch, base, there)
        call()
        print("answer begins", flush=True)
        sys.stdin.readline()
        count, wall = 0, 0.0
        while wall < seconds:
            began = time.perf_counter()
            call()
            wall += time.perf_counter() - began
            count += 1
            if what == "put" and count * batch >= ROOM:
                break
        print("answer", count, wall, flush=True)
        tidy()


def calls(
    store: Any, what: str, batch: int, base: int, there: list[str]
) -> tuple[Callable[[], None], Callable[[], object]]:
    """A call that is made again and again, and what is to be done in the end."""
    places, sizes = [base + number * VALUE for number in range(batch)], [VALUE] * batch
    turn = 0
    prefix = f"{time.time_ns()}@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@"
    put: list[str] = []

    def names() -> list[str]:
        nonlocal turn
        turn += batch
        if what == "put":
            found = [f"{prefix}{number:064x}" for number in range(turn, turn + batch)]
            put.extend(found)
            return found
        first = turn % (KEYS - batch)
        return there[first : first + batch]

    def call() -> None:
        keys = names()
        if what == "exist":
            good = store.is_exist(keys[0]) == 1 if batch == 1 else store.batch_is_exist(keys) == [1] * batch
        elif what == "get":
            good = (
                store.get_into(keys[0], base, VALUE) == VALUE
                if batch == 1
                else store.batch_get_into(keys, places, sizes) == sizes
            )
        elif batch == 1:
            good = store.put_from(keys[0], base, VALUE) == 0
        else:
            good = store.batch_put_from(keys, places, sizes) == [0] * batch
        if not good:
            raise SystemExit(f"{what} failed")

    return call, lambda: store.batch_remove(put, True) if put else None


@contextlib.contextmanager
def our_master(state: str) -> Iterator[tuple[str, int]]:
    """``mooncake store master`` in a process of its own: its address and its process."""
    words = ["--json", "store", "master", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    words += ["--state", state] if state else []
    process = subprocess.Popen(
        [sys.executable, "-m", "mooncake_cli", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"], process.pid
    finally:
        process.terminate()
        process.communicate()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=as_count, default=1)
    parser.add_argument("--rounds", type=as_count, default=16)
    parser.add_argument("--seconds", type=as_amount, default=0.1)
    parser.add_argument("--only", default="")
    parser.add_argument("--state", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    chosen = [name for name in FIGURES if any(each in name for each in options.only.split(","))]
    runs = [measured(options, chosen) for _ in range(options.runs)]
    rows = {
        name: {each: statistics.median(run[name][each] for run in runs) for each in row}
        for name, row in runs[0].items()
    }
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{'microseconds a call':<34}{'ours':>10}{'upstream':>10}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:<34}{row['ours']:>10.1f}{row['upstream']:>10.1f}{row['ratio']:>8.2f}")


def measured(options: argparse.Namespace, chosen: list[str]) -> dict[str, dict[str, float]]:
    """One run: of each figure ours, upstream's, and how they compare."""
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as state, contextlib.ExitStack() as ends:
        address, pid = ends.enter_context(our_master(state if options.state else ""))
        real = ends.enter_context(RealMaster())
        workers = {"ours": Worker(address, pid), "other": Worker(real.address, real.pid)}
        for worker in workers.values():
            ends.callback(worker.close)
        for number in range(options.rounds):
            for name in random.sample(chosen, len(chosen)):
                taken = {}
                for whose in random.sample(("ours", "other"), 2):
                    taken[whose] = workers[whose].ask(*FIGURES[name], options.seconds)
                for kind, which in (("wall", 0), ("processor", 1)):
                    pair = (taken["ours"][which] * 1e6, taken["other"][which] * 1e6)
                    found.setdefault(f"{name}, {kind}", []).append(pair)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return {f"{name}, {kind}": quartiles(found[f"{name}, {kind}"]) for kind in ("wall", "processor") for name in chosen}


def quartiles(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Of each the lower quartile, and how they compare."""
    ours, upstream = (sorted(each)[len(pairs) // 4] for each in zip(*pairs, strict=True))
    return {"ours": ours, "upstream": upstream, "ratio": upstream / ours}


if __name__ == "__main__":
    main()
