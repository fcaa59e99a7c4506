"""Whether this checkout is as fast as another: both run the same things in turn, and what counts is the ratio.

::

    git worktree add ../other c18a291 && (cd ../other && scripts/environment)
    python benchmarks/beside.py ../other [--rounds 7] [--mib 1024] [--only copies,transfer] [--json]

Each round takes every figure once in each checkout, in a new random order, with that checkout's own ``.venv``.
Compared are the start of the command, copies between two agents (as whole commands, by the seconds that the agent
reports, and by what both agents took of the processors), the transfer engine (by the clock, and by processor time),
the simulator, and, with ``--only broadcast`` and as root, what the agents of a broadcast take of the processors. A
ratio above 1 means that this checkout is faster; it is the median over the rounds of other's time over ours in that
round, so that a machine that slows down halfway slows both. Files lie in /dev/shm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from checkouts import OURS, Checkout, print_table, ratios
from counts import as_count

TICKS = os.sysconf("SC_CLK_TCK")
STARTS = 5
"""Starts of the command for one figure: each takes a tenth of a second."""

ENGINE_PROCESSOR = Path(__file__).with_name("engine_processor.py")
ENGINE_MIB = 512
BROADCAST_PROCESSOR = Path(__file__).with_name("broadcast_processor.py")

Figures = dict[str, float]
"""Seconds for the same work; the smaller the better."""


class Contender(Checkout):
    """One of the two and, for copies, two agents of its own."""

    def __init__(self, root: Path, scratch: Path) -> None:
        super().__init__(root)
        self.homes = scratch / "a", scratch / "b"
        self.dest = scratch / "copy"
        self.agents: list[int] = []

    def at(self, home: Path, *words: str) -> Any:
        """One command to one of its agents."""
        return self.run("--home", str(home), *words, "--json")

    def start_agents(self, source: Path) -> None:
        """Two agents, the first with ``source`` registered."""
        first = self.at(self.homes[0], "node", "start")
        second = self.at(self.homes[1], "--metadata", first["metadata"], "node", "start")
        self.agents = [int(first["pid"]), int(second["pid"])]
        self.at(self.homes[0], "register", str(source), "--name", "bench")

    def spent(self) -> float:
        """Processor seconds of its agents so far."""
        return sum(map(seconds_of, self.agents))

    def stop_agents(self) -> None:
        """End them, whether they run or not."""
        for home in reversed(self.homes):
            with contextlib.suppress(SystemExit):
                self.at(home, "node", "stop")


def start(checkout: Contender, _: Path) -> Figures:
    """The command's start."""
    began = time.perf_counter()
    for _ in range(STARTS):
        checkout.run("--help")
    return {"mooncake --help": (time.perf_counter() - began) / STARTS}


def copies(checkout: Contender, source: Path) -> Figures:
    """A get over each transport, and a register; whole commands and agents."""
    found: Figures = {}

    def timed(name: str, home: Path, *words: str) -> None:
        spent, began = checkout.spent(), time.perf_counter()
        agent = checkout.at(home, *words)["seconds"]
        found[name] = time.perf_counter() - began
        found[f"{name}, agent"] = agent
        found[f"{name}, processor"] = checkout.spent() - spent

    for transport in ("tcp", "local"):
        take_memory(checkout.dest, source.stat().st_size)
        words = ["get", "bench", str(checkout.dest), "--transport", transport, "--no-seed"]
        timed(f"get {transport}", checkout.homes[1], *words)
        checkout.dest.unlink()
    timed("register", checkout.homes[0], "register", str(source), "--name", "bench")
    return found


def seconds_of(pid: int) -> float:
    """Processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def take_memory(path: Path, size: int) -> None:
    """Write and remove so much: a virtual machine gives free memory back, and getting it again costs much."""
    with path.open("wb") as file:
        for _ in range(0, size, 1 << 20):
            file.write(bytes(1 << 20))
    path.unlink()


def transfer(checkout: Contender, _: Path) -> Figures:
    """The transfer engine, memory to memory: seconds for a GB."""
    words = [
        "--engine",
        "ours",
        "--operation",
        "read,write",
        "--block-size",
        "64KiB,1MiB",
        "--batch-size",
        "16",
        "--threads",
        "1,4",
    ]
    rows = checkout.run("bench", "transfer", *words, "--duration", "1", "--rounds", "1", "--json")["rows"]
    return {f"{r['operation']} {r['block_size'] >> 10} KiB, {r['threads']} threads": 1 / r["gbps"] for r in rows}


def processor(checkout: Contender, _: Path) -> Figures:
    """The transfer engine again: processor seconds for a GB, which other programs on the machine change little."""
    done = checkout.python_of(ENGINE_PROCESSOR, str(ENGINE_MIB))
    return {f"{case}, processor": seconds for case, seconds in done.items()}


def simulate(checkout: Contender, _: Path) -> Figures:
    """The simulator's own run time, and what it says that a broadcast takes."""
    began = time.perf_counter()
    made = checkout.run("bench", "simulate", "--receivers", "40", "--size", "20GB", "--json")
    return {"bench simulate": time.perf_counter() - began, "simulated broadcast": made["last"]}


def broadcast(checkout: Contender, _: Path) -> Figures:
    """A real broadcast to eight: processor seconds of the agents for a GB."""
    done = checkout.python_of(BROADCAST_PROCESSOR)
    return {f"broadcast, {kind}": seconds for kind, seconds in done.items()}


BENCHES: dict[str, Callable[[Contender, Path], Figures]] = {
    "start": start,
    "copies": copies,
    "transfer": transfer,
    "processor": processor,
    "simulate": simulate,
    "broadcast": broadcast,
}
ALONE = "broadcast"
"""What is measured only when it is asked for: it needs root."""


@contextlib.contextmanager
def made(other: Path, mib: int, names: list[str]) -> Iterator[tuple[list[Contender], Path]]:
    """Both checkouts, ready, and the file that is copied."""
    with contextlib.ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="mooncake-beside-", dir="/dev/shm"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        both = []
        for root in (OURS, other):
            own = scratch / str(len(both))
            own.mkdir()
            both.append(Contender(root, own))
        source = scratch / "source.bin"
        with source.open("wb") as file:
            for _ in range(0, mib, 16):
                file.write(os.urandom(16 << 20))
        if "copies" in names:
            for checkout in both:
                stack.callback(checkout.stop_agents)
                checkout.start_agents(source)
        yield both, source


def measure(other: Path, rounds: int, mib: int, names: list[str]) -> dict[str, list[tuple[float, float]]]:
    """Each figure's (ours, other's) seconds, round by round; a first round is not counted."""
    found: dict[str, list[tuple[float, float]]] = {}
    with made(other, mib, names) as (both, source):
        for number in range(rounds + 1):
            for name in random.sample(names, len(names)):
                pair: dict[int, Figures] = {}
                for which in random.sample((0, 1), 2):
                    pair[which] = BENCHES[name](both[which], source)
                print(f"round {number}: {name}", file=sys.stderr)
                if number:
                    for figure, ours in pair[0].items():
                        found.setdefault(figure, []).append((ours, pair[1][figure]))
    return found


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout, with a .venv of its own")
    parser.add_argument("--rounds", type=as_count, default=7, help="rounds counted, after one that is not (default 7)")
    parser.add_argument("--mib", type=as_count, default=1024, help="size of the file that is copied (default 1024)")
    parser.add_argument(
        "--only",
        default=",".join(name for name in BENCHES if name != ALONE),
        help=f"some of: {', '.join(BENCHES)} (default: all but {ALONE})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    found = measure(options.other.resolve(), options.rounds, options.mib, names)
    rows = ratios(found)
    if options.json:
        print(json.dumps({"rounds": options.rounds, "mib": options.mib, "figures": rows}))
        return 0
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
