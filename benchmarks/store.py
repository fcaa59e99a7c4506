"""How fast our client of the pooled store is beside upstream's, in turn, on upstream's master.

::

    python benchmarks/store.py [--rounds 5] [--seconds 0.5] [--only get,batch] [--json]

Both clients are the compatible class, called alike: values are got into registered memory and put from it. Each figure
is taken for both within half a second of the other, in random order, round by round, by processes that live all the
while. A ratio above 1 means that ours is faster. Of ours "TCP" is with neighbours switched off, as between two hosts,
and "one host" with them on, which upstream does over TCP. Ours compares the xxh3 of each value, and the wheel nothing,
but where it says "unchecked", which is ours with checksum="none", or "both checked", which is the wheel with the CRC-64
that MOONCAKE_STORE_CHECKSUM=1 has it compare. "processor" is what the client's own process works for a value: where
others keep the machine busy it says more, since who waits there gets the more the more threads he has. Needs the wheel.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import json
import os
import random
import subprocess
import sys
import threading
import time
from typing import Any

from checkouts import print_table, ratios
from counts import as_amount, as_count

from p2pstore.bench.store.real_master import RealMaster
from p2pstore.kv.client.checksums import UPSTREAMS_SWITCH

KIB, MIB = 1 << 10, 1 << 20
SEGMENT = 512 * MIB
BUFFER = 128 * MIB

VALUES = {4 * KIB: 64, 128 * KIB: 64, MIB: 48, 16 * MIB: 4}
"""Sizes, and how many values of each a getter goes through."""

FIGURES: dict[str, tuple[str, str, int, int, int]] = {
    "exists, TCP": ("far", "exist", 4 * KIB, 1, 0),
    "get 4 KiB, TCP": ("far", "get", 4 * KIB, 1, 0),
    "put 4 KiB, TCP": ("far", "put", 4 * KIB, 1, 0),
    "batch 32 x 4 KiB, TCP": ("far", "get", 4 * KIB, 1, 32),
    "batch 32 x 128 KiB, TCP": ("far", "get", 128 * KIB, 1, 32),
    "get 1 MiB, TCP": ("far", "get", MIB, 1, 0),
    "get 1 MiB, 4 threads, TCP": ("far", "get", MIB, 4, 0),
    "get 16 MiB, TCP": ("far", "get", 16 * MIB, 1, 0),
    "get 16 MiB, 4 threads, TCP": ("far", "get", 16 * MIB, 4, 0),
    "get 4 KiB, one host": ("near", "get", 4 * KIB, 1, 0),
    "batch 32 x 128 KiB, one host": ("near", "get", 128 * KIB, 1, 32),
    "get 1 MiB, one host": ("near", "get", MIB, 1, 0),
    "get 16 MiB, one host": ("near", "get", 16 * MIB, 1, 0),
    "get 4 KiB, own memory": ("own", "get", 4 * KIB, 1, 0),
    "get 1 MiB, own memory": ("own", "get", MIB, 1, 0),
    "get 16 MiB, own memory": ("own", "get", 16 * MIB, 1, 0),
    "get 1 MiB, own, unchecked": ("unchecked", "get", MIB, 1, 0),
    "get 16 MiB, own, unchecked": ("unchecked", "get", 16 * MIB, 1, 0),
    "get 1 MiB, own, both checked": ("checked", "get", MIB, 1, 0),
    "get 16 MiB, own, both checked": ("checked", "get", 16 * MIB, 1, 0),
}
"""By name: the client's role, what it does, the size of values, threads, and values in a call (0: a call for one)."""


POOLS = {
    ("ours", "unchecked"): "ours unchecked",
    ("wheel", "checked"): "wheel checked",
}
"""Clients whose values are in a pool of their own, besides the two pools that all others of a kind share."""

SAME = {("wheel", "unchecked"): ("wheel", "own"), ("ours", "checked"): ("ours", "own")}
"""Clients that are another one, for each of the two sides."""


class Worker:
    """A process with one client; ``role`` is own, near, far, unchecked or checked."""

    def __init__(self, whose: str, role: str, master: str) -> None:
        variables = {"MC_FORCE_TCP": "1", "MC_TCP_BIND_ADDRESS": "127.0.0.1", "GLOG_minloglevel": "2"}
        variables[UPSTREAMS_SWITCH] = "1" if role == "checked" else "0"
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", whose, role, master],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **variables},
        )  # fmt: skip
        self.ask()

    def ask(self, *what: object) -> tuple[float, float]:
        """Have it measure: seconds for one value, and seconds that its process worked for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if what:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):
                _, wall, processor = line.split()
                return float(wall), float(processor)
        raise SystemExit("a client ended")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def work(whose: str, role: str, master: str) -> None:
    """A worker's own process."""
    if whose == "ours":
        from p2pstore.kv.client import compat  # noqa: PLC0415 - each worker loads one of the two

        if role == "far":
            compat.StoreOptions = functools.partial(compat.StoreOptions, neighbours=False)  # type: ignore[assignment, misc]
        if role == "unchecked":
            compat.StoreOptions = functools.partial(compat.StoreOptions, checksum="none")  # type: ignore[assignment, misc]
        store: Any = compat.MooncakeDistributedStore()
    else:
        from mooncake.store import MooncakeDistributedStore  # noqa: PLC0415 - see above

        store = MooncakeDistributedStore()
    gives = role not in {"near", "far"}
    code = store.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT if gives else 0, BUFFER, "tcp", "", master)
    if code:
        raise SystemExit(f"setup: {code}")
    if gives:
        for size, count in VALUES.items():
            for number in range(count):
                code = store.put(f"{whose}-{size}-{number}", os.urandom(size))
                if code:
                    raise SystemExit(f"put: {code}")
    print("answer 0 0", flush=True)
    for line in sys.stdin:
        print("answer", *measured(store, whose, *json.loads(line)), flush=True)


def measured(
    store: Any, whose: str, what: str, size: int, threads: int, batch: int, seconds: float
) -> tuple[float, float]:
    """Seconds for one value, over all threads, and what this process worked for it."""
    step = size * max(1, batch)
    memory = [(ctypes.c_ubyte * step)() for _ in range(threads)]
    counts = [0] * threads
    failed: list[str] = []
    until = time.perf_counter() + seconds
    began, worked = time.perf_counter(), time.process_time()

    def run(thread: int) -> None:
        pointer = ctypes.addressof(memory[thread])
        ctypes.memset(pointer, 1, step)
        store.register_buffer(pointer, step)
        turn = thread * 7
        while not counts[thread] or time.perf_counter() < until:
            names = [f"{whose}-{size}-{(turn + each) % VALUES[size]}" for each in range(max(1, batch))]
            if what == "exist":
                good = store.is_exist(names[0]) == 1
            elif what == "put":
                good = store.put_from(f"{whose}-{os.getpid()}-{time.perf_counter_ns()}", pointer, size) == 0
            elif batch:
                at = [pointer + each * size for each in range(batch)]
                good = store.batch_get_into(names, at, [size] * batch) == [size] * batch
            else:
                good = store.get_into(names[0], pointer, size) == size
            if not good:
                failed.append(f"{what} of {names[0]} failed")
                return
            turn += max(1, batch)
            counts[thread] += max(1, batch)
        store.unregister_buffer(pointer)

    workers = [threading.Thread(target=run, args=(each,)) for each in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise SystemExit(failed[0])
    return (time.perf_counter() - began) / sum(counts), (time.process_time() - worked) / sum(counts)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=as_count, default=5)
    parser.add_argument("--seconds", type=as_amount, default=0.5)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=3)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    chosen = [name for name in FIGURES if any(each in name for each in options.only.split(","))]
    found: dict[str, list[tuple[float, float]]] = {}
    # Each in a pool of its own: a getter must find nothing but what its own kind holds.
    roles = {"own", *(FIGURES[name][0] for name in chosen)}
    with contextlib.ExitStack() as ends:
        workers: dict[tuple[str, str], Worker] = {}
        masters: dict[str, str] = {}
        for role in ("own", *sorted(roles - {"own"})):  # whose values the others get
            for whose in ("ours", "wheel"):
                if (whose, role) in SAME:
                    workers[whose, role] = workers[SAME[whose, role]]
                    continue
                pool = POOLS.get((whose, role), whose)
                if pool not in masters:
                    masters[pool] = ends.enter_context(RealMaster()).address
                workers[whose, role] = worker = Worker(whose, role, masters[pool])
                ends.callback(worker.close)
        for number in range(options.rounds):
            for name in random.sample(chosen, len(chosen)):
                role, *what = FIGURES[name]
                taken = {}
                for whose in random.sample(("ours", "wheel"), 2):
                    taken[whose] = workers[whose, role].ask(*what, options.seconds)
                for row, which in ((name, 0), (f"{name}, processor", 1)):
                    found.setdefault(row, []).append((taken["ours"][which] * 1e6, taken["wheel"][which] * 1e6))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    kinds = [name for ending in ("", ", processor") for each in chosen if (name := each + ending) in found]
    rows = ratios({name: found[name] for name in kinds})
    if options.json:
        print(json.dumps(rows))
    else:
        print("microseconds a value; 'other' is the wheel")
        print_table(rows)


if __name__ == "__main__":
    main()
