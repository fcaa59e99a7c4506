"""Processor seconds of the agents of a real broadcast for each GB received, and by which of their threads; as root.

::

    python benchmarks/broadcast_processor.py [--receivers 8] [--mib 128] [--mbit 200]

``beside.py --only broadcast`` runs it in two checkouts in turn. Prints JSON: ``all`` is what the processes took while
the object was on its way, everything else is of one kind of thread, named by its work. A thread is looked at ten times
a second, so that what it did in its last tenth is missing there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from counts import as_amount, as_count

KINDS = {
    "pull-": "receive, hash, write",
    "pull": "plan",
    "data": "send",
    "python": "event loop",
}
"""Kinds of threads by the beginning of their names; the first that fits."""

LOOK_SECONDS = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


def agent() -> None:
    """Be an agent whose threads tell the system their names, as Python does by itself from 3.14 on."""
    run = threading.Thread.run

    def named(thread: threading.Thread) -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(thread.name[:15], encoding="utf-8")
        run(thread)

    threading.Thread.run = named  # type: ignore[method-assign]
    try:
        found = importlib.import_module("p2pstore.agent.agent")
    except ImportError:  # an earlier state: it was one module
        found = importlib.import_module("p2pstore.agent")
    sys.exit(found.main())


def seconds_of(pid: int) -> float:
    """Processor seconds of a process, threads that have ended among them."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def threads_of(pid: int) -> dict[int, tuple[str, float]]:
    """Name and processor seconds of each of its threads."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text(encoding="utf-8", errors="replace").strip()
            found[int(task.name)] = name, int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Watch:
    """What some processes take, from its making to ``end``."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._before = {pid: threads_of(pid) for pid in pids}
        self._last = {pid: dict(threads) for pid, threads in self._before.items()}
        self._spent = sum(map(seconds_of, pids))
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            for pid in self._pids:
                self._last[pid] |= threads_of(pid)

    def end(self) -> dict[str, float]:
        """Seconds by kind of thread, and ``all``."""
        spent = sum(map(seconds_of, self._pids)) - self._spent
        self._over.set()
        self._looking.join()
        kinds: Counter[str] = Counter({"all": spent, **dict.fromkeys(KINDS.values(), 0.0)})  # not each state has all
        for pid in self._pids:
            for thread, (name, seconds) in self._last[pid].items():
                kind = next((KINDS[start] for start in KINDS if name.startswith(start)), "other")
                kinds[kind] += seconds - self._before[pid].get(thread, ("", 0.0))[1]
        return dict(kinds)


def main() -> int:
    """Run a broadcast of this checkout, or of the one that this Python finds, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receivers", type=as_count, default=8)
    parser.add_argument("--mib", type=as_count, default=128, help="size of the object (default 128)")
    parser.add_argument("--mbit", type=as_amount, default=200.0, help="each link, both ways (default 200)")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    from p2pstore.bench import broadcast as bench  # noqa: PLC0415 - of whichever checkout runs this

    plan_of: Any = getattr(bench, "BroadcastPlan", None) or bench.Plan  # type: ignore[attr-defined] # an earlier state
    run: Any = bench._Run  # noqa: SLF001 - as a test would
    spent: dict[str, float] = {}
    distribute = run._distribute  # noqa: SLF001 - as above

    def watched(self: Any) -> None:
        watch = Watch([each.process._child.pid for each in self._agents])  # noqa: SLF001 - as above
        distribute(self)
        spent.update(watch.end())

    run._distribute = watched  # noqa: SLF001 - as above
    module = re.sub(r"\.py$", "", Path(__file__).name)
    done = bench.broadcast(
        plan_of(
            receivers=options.receivers,
            size=options.mib << 20,
            rate=options.mbit * 1e6 / 8,
            modules=dict.fromkeys(range(options.receivers + 1), module),
        ),
        lambda _: None,
    )
    if not done.ok:
        print("somebody did not get everything", file=sys.stderr)
        return 1
    gigabytes = options.receivers * (options.mib << 20) / 1e9
    print(json.dumps({kind: seconds / gigabytes for kind, seconds in spent.items()}))
    return 0


if __name__ == "__main__":
    if "--home" in sys.argv:  # as an agent is started
        agent()
    sys.exit(main())
