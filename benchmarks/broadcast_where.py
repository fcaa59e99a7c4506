"""Where the processor seconds of a real broadcast go, by thread and by kind of work; as root, with ``perf``.

::

    python benchmarks/broadcast_where.py [--receivers 8] [--mib 256] [--mbit 200]

The same run as of ``broadcast_processor.py``, with ``perf record`` on all agents, 499 samples for each second of a
processor. A sample is of the work that the kernel does for the system call that it lies in, or the interpreter's.
Prints seconds for each GB received; with ``--json`` as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import broadcast_processor as processor
from counts import as_amount, as_count

FREQUENCY = 499
"""Samples for each second of a processor."""

WORKS = {
    "writes to the page cache": ("pwrite64", "sys_write", "lseek"),
    "network": ("softirq", "sendto", "sendmsg", "recvfrom", "recvmsg", "sendfile", "connect", "accept"),
    "sleeping and waking": ("futex", "epoll", "sys_poll", "schedule", "eventfd"),
}
"""Kinds of work of the kernel, by what the name of a function on the stack has in it; the first that fits."""

Samples = Counter[tuple[str, str]]
"""How many there are, by kind of thread and of work."""


def kind_of(thread: str) -> str:
    """The kind of a thread, by its name."""
    return next((kind for start, kind in processor.KINDS.items() if thread.startswith(start)), "other")


def work_of(stack: list[tuple[str, str]]) -> str:
    """The kind of work of a stack of functions and where they are from, the innermost first."""
    if not any("kernel" in place for _, place in stack):
        return "interpreter and libraries"
    for work, words in WORKS.items():
        if any(word in function for function, _ in stack for word in words):
            return work
    return "other of the kernel"


def samples(lines: Iterator[str]) -> Samples:
    """Count what ``perf script -F comm,ip,sym,dso`` prints: a thread's name, a stack, and an empty line."""
    counted: Samples = Counter()
    thread = ""
    stack: list[tuple[str, str]] = []
    for line in lines:
        if not line.strip():
            if thread:
                counted[kind_of(thread), work_of(stack)] += 1
            thread, stack = "", []
        elif not line[0].isspace():
            thread = line.strip()
        else:
            _, _, rest = line.strip().partition(" ")
            function, _, place = rest.rpartition(" (")
            stack.append((function, place.rstrip(")")))
    return counted


def record(options: argparse.Namespace, data: Path) -> float:
    """Run a broadcast under ``perf``: what all its agents took for each GB, in seconds."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    from p2pstore.bench import broadcast as bench  # noqa: PLC0415 - it is slow to import

    spent: dict[str, float] = {}
    run: Any = bench._Run  # noqa: SLF001 - as a test would
    distribute = run._distribute  # noqa: SLF001 - as above

    def watched(self: Any) -> None:
        pids = [each.process._child.pid for each in self._agents]  # noqa: SLF001 - as above
        words = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), "-g", "-o", str(data)]
        with subprocess.Popen([*words, "-p", ",".join(map(str, pids))]) as perf:
            watch = processor.Watch(pids)
            distribute(self)
            spent.update(watch.end())
            perf.send_signal(signal.SIGINT)

    run._distribute = watched  # noqa: SLF001 - as above
    size = options.mib << 20
    modules = dict.fromkeys(range(options.receivers + 1), "broadcast_processor")
    plan = bench.BroadcastPlan(receivers=options.receivers, size=size, rate=options.mbit * 1e6 / 8, modules=modules)
    if not bench.broadcast(plan, lambda _: None).ok:
        raise SystemExit("somebody did not get everything")
    return spent["all"] / (options.receivers * size / 1e9)


def main() -> int:
    """Print where it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receivers", type=as_count, default=8)
    parser.add_argument("--mib", type=as_count, default=256, help="size of the object (default 256)")
    parser.add_argument("--mbit", type=as_amount, default=200.0, help="each link, both ways (default 200)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "perf.data"
        spent = record(options, data)
        words = ["perf", "script", "-i", str(data), "-F", "comm,ip,sym,dso"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as script:
            assert script.stdout is not None
            counted = samples(iter(script.stdout))
    each = spent / max(1, counted.total())
    if options.json:
        found = [{"thread": kind, "work": work, "seconds": n * each} for (kind, work), n in counted.most_common()]
        print(json.dumps({"all": spent, "parts": found}))
        return 0
    print(f"{spent:.2f} s for each GB received")
    for (kind, work), count in counted.most_common():
        print(f"{count * each:6.2f}  {kind:24} {work}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
