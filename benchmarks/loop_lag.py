"""How long a node's event loop stands still while a write of a get hangs, as one does on a full disk or a dead NFS.

::

    python benchmarks/loop_lag.py [--hang 20] [--mib 64] [--json]

Three nodes share one event loop in this process: two hold an object, the third gets it. ``os.pwrite`` is made to hang
in the threads that pull from the first holder. A ticker wakes every few milliseconds; how much later than it asked for
is the loop's lag, by phase:

- idle: before anything;
- pulling: the get runs, and no write hangs;
- write hangs: from the first write that hangs on;
- source withdrawn: the holder whose bytes are being written is unregistered;
- cancelled: the get is cancelled, and ends for whoever waits for it, while the write still hangs.

Whatever else a node does on its loop (renew its lease, answer its peers and its users) waits for as long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from counts import as_amount, as_count

from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.pull.get import GetRequest

TICK_SECONDS = 0.005
PHASE_SECONDS = 3.0
HOLDERS = "holder", "other"


class Ticker:
    """Measures the loop's lag, phase by phase."""

    def __init__(self) -> None:
        self.lags: dict[str, list[float]] = {}
        self.phase = "idle"

    async def run(self) -> None:
        """For ever."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.lags.setdefault(self.phase, []).append(max(0.0, time.perf_counter() - due))


class HangingWrites:
    """``os.pwrite`` hangs, once it is told to, in the threads that pull from the first holder."""

    def __init__(self) -> None:
        self.hang = False
        self.hanging = threading.Event()
        self.go_on = threading.Event()
        self._pwrite = os.pwrite

    def __call__(self, descriptor: int, data: Any, at: int) -> int:
        if self.hang and threading.current_thread().name.startswith(f"pull-{HOLDERS[0]}"):
            self.hanging.set()
            self.go_on.wait()
        return self._pwrite(descriptor, data, at)

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """With ``os.pwrite`` replaced."""
        os.pwrite = self  # type: ignore[assignment]
        try:
            yield
        finally:
            self.go_on.set()
            os.pwrite = self._pwrite


async def until(event: threading.Event) -> None:
    """Wait for a thread's event without holding the loop up."""
    while not event.is_set():  # noqa: ASYNC110 - nobody tells the loop
        await asyncio.sleep(TICK_SECONDS)


async def measure(directory: Path, mib: int, hang: float) -> dict[str, Any]:
    """Go through the phases; lags and what became of the get."""
    source = directory / "source"
    source.write_bytes(os.urandom(1 << 20) * mib)
    writes, ticker = HangingWrites(), Ticker()
    server = MemoryServer()
    async with AsyncExitStack() as stack:
        nodes = []
        for name in (*HOLDERS, "getter"):
            nodes.append(await Node.start(NodeOptions(name), MemoryStore(server)))
            stack.push_async_callback(nodes[-1].close)
        for node in nodes[:-1]:
            await node.register(source, "n", hash_name="xxh3_128", chunk_size=1 << 20)
        ticking = asyncio.create_task(ticker.run())
        stack.callback(ticking.cancel)
        await asyncio.sleep(PHASE_SECONDS)
        with writes.patched():
            ticker.phase = "pulling"
            await nodes[-1].get(GetRequest("n", directory / "first", transport="tcp", seed=False), lambda _: None)
            writes.hang = True
            request = GetRequest("n", directory / "second", transport="tcp", seed=False)
            work = asyncio.create_task(nodes[-1].get(request, lambda _: None))
            await until(writes.hanging)
            ticker.phase = "write hangs"
            release = asyncio.get_running_loop().call_later(hang, writes.go_on.set)
            await asyncio.sleep(PHASE_SECONDS)
            ticker.phase = "source withdrawn"
            await nodes[0].unregister("n")
            await asyncio.sleep(PHASE_SECONDS)
            failed = repr(work.exception()) if work.done() else ""
            ticker.phase = "cancelled"
            began = time.perf_counter()
            work.cancel()
            await asyncio.wait({work})
            await asyncio.sleep(TICK_SECONDS)
            ended = time.perf_counter() - began
            release.cancel()
            writes.go_on.set()
            await asyncio.sleep(TICK_SECONDS)
    return {"lags": ticker.lags, "failed": failed, "cancel_seconds": ended}


def main() -> int:
    """Measure, and print a table of the lags in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hang", type=as_amount, default=20.0, help="seconds that a write hangs, at most (default 20)")
    parser.add_argument("--mib", type=as_count, default=64, help="size of the object (default 64)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mooncake-lag-") as directory:
        found = asyncio.run(measure(Path(directory), args.mib, args.hang))
    rows = {}
    for phase, lags in found["lags"].items():
        lags.sort()
        rows[phase] = {"ticks": len(lags), "p99_ms": 1e3 * lags[int(0.99 * (len(lags) - 1))], "max_ms": 1e3 * lags[-1]}
    if args.json:
        print(json.dumps({"phases": rows, "failed": found["failed"], "cancel_seconds": found["cancel_seconds"]}))
        return 0
    for phase, row in rows.items():
        print(f"{phase:18} lag p99 {row['p99_ms']:9.2f} ms   max {row['max_ms']:9.2f} ms   ({row['ticks']} ticks)")
    print(f"the cancelled get ended after {found['cancel_seconds']:.2f} s")
    if found["failed"]:
        print(f"it had failed before that: {found['failed']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
