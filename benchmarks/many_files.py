r"""What many small files cost, in this checkout and in another: both do the same in turn, and what counts is the ratio.

::

    git worktree add ../other c18a291 && (cd ../other && scripts/environment)
    python benchmarks/many_files.py ../other [--files 200000] [--bytes 13] [--rounds 3] \
        [--transports tcp,local] [--json]

Each round takes every figure once in each checkout, in a random order, with that checkout's own ``.venv`` and two fresh
agents. Seconds are of whole commands; processor seconds are those of both agents; memory is an agent's peak above what
it had before. A ratio above 1 means that this checkout is faster, or takes less; it is the median over the rounds of
other's figure over ours in that round. Files lie in /dev/shm. ``cp -r`` of the same files is timed beside them.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkouts import OURS, Checkout, print_table, ratios
from counts import as_count, as_count_or_none

IN_ONE_DIRECTORY = 1000

Figures = dict[str, float]
"""Seconds, processor seconds or MB: the smaller the better."""


class Agent:
    """One agent of one checkout, in a home of its own, and what it costs."""

    def __init__(self, checkout: Checkout, home: Path, metadata: str = "") -> None:
        self._checkout = checkout
        self._home = home
        found = self.run(*(("--metadata", metadata) if metadata else ()), "node", "start")
        self.metadata: str = found["metadata"]
        self.pid: int = found["pid"]
        self._idle = self._status("VmHWM")

    def run(self, *words: str) -> Any:
        """One mooncake command to it; its JSON."""
        return self._checkout.run("--home", str(self._home), *words, "--json")

    def stop(self) -> None:
        """End it, whether it runs or not."""
        with contextlib.suppress(SystemExit):
            self.run("node", "stop")

    @property
    def peak(self) -> float:
        """MB that it has had at most since it was started, beside what it had then."""
        return (self._status("VmHWM") - self._idle) / 1000

    @property
    def most_mib(self) -> float:
        """MiB that it has had at most since it was started, all of it."""
        return self._status("VmHWM") / 1024

    @property
    def seconds(self) -> float:
        """Processor seconds that it has taken."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
        raise SystemExit(f"/proc/{self.pid}/status has no {key}")


def make_files(root: Path, count: int, size: int) -> None:
    """Files of a few bytes, each another, a thousand in a directory."""
    for number in range(count):
        directory = root / f"part-{number // IN_ONE_DIRECTORY:04d}"
        if number % IN_ONE_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"file-{number:06d}.txt").write_bytes(b"%0*d" % (size, number))


def measure(checkout: Checkout, source: Path, scratch: Path, transports: list[str]) -> Figures:
    """Every figure of one checkout, once."""
    found: Figures = {}
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(dir=scratch))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        first = Agent(checkout, home / "a")
        stack.callback(first.stop)
        second = Agent(checkout, home / "b", first.metadata)
        stack.callback(second.stop)
        with timed(found, "register", first):
            first.run("register", str(source), "--name", "many")
        found["register, MB"] = first.peak
        for transport in transports:
            copy = home / transport
            with timed(found, f"get {transport}", first, second):
                second.run("get", "many", str(copy), "--transport", transport, "--no-seed")
            found.setdefault("get, MB", second.peak)
            if subprocess.run(["diff", "-r", str(source), str(copy)], check=False).returncode:
                raise SystemExit(f"{copy} is not what was registered")
            shutil.rmtree(copy)
    return found


@contextlib.contextmanager
def timed(found: Figures, name: str, *agents: Agent) -> Iterator[None]:
    """Note the seconds of a command, and the processor seconds of the agents meanwhile."""
    began, before = time.perf_counter(), sum(agent.seconds for agent in agents)
    yield
    found[name] = time.perf_counter() - began
    found[f"{name}, CPU"] = sum(agent.seconds for agent in agents) - before


def copied(source: Path, scratch: Path) -> float:
    """Seconds of ``cp -r``."""
    copy = scratch / "cp"
    began = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(copy)], check=True)
    took = time.perf_counter() - began
    shutil.rmtree(copy)
    return took


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout, with a .venv of its own")
    parser.add_argument("--files", type=as_count, default=200_000, help="how many (default 200000)")
    parser.add_argument("--bytes", type=as_count_or_none, default=13, help="size of each (default 13)")
    parser.add_argument("--rounds", type=as_count, default=3, help="default 3")
    parser.add_argument("--transports", default="tcp,local", help="some of: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    pairs: dict[str, list[tuple[float, float]]] = {}
    cp: list[float] = []
    both = Checkout(OURS), Checkout(options.other.resolve())
    transports = options.transports.split(",")
    scratch = Path(tempfile.mkdtemp(prefix="mooncake-many-", dir="/dev/shm"))
    try:
        source = scratch / "source"
        make_files(source, options.files, options.bytes)
        for number in range(options.rounds):
            cp.append(copied(source, scratch))
            pair: dict[int, Figures] = {}
            for which in random.sample((0, 1), 2):
                pair[which] = measure(both[which], source, scratch, transports)
                print(f"round {number + 1}: {('ours', 'other')[which]} {pair[which]}", file=sys.stderr)
            for figure, ours in pair[0].items():
                pairs.setdefault(figure, []).append((ours, pair[1][figure]))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = ratios(pairs)
    if options.json:
        print(json.dumps({"rounds": options.rounds, "files": options.files, "cp": cp, "figures": rows}))
        return 0
    print_table(rows)
    print(f"{'cp -r':<26}{statistics.median(cp):>10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
