"""How long an agent's metrics take, with few objects and with many: ``python -m benchmarks.metrics [OBJECTS]``.

Two agents, processes of their own on memory metadata, one with ten objects; each is asked in both formats over one
connection, as Prometheus asks. Prints what a scrape takes at the client, in the median and by the 99th percentile, and
the agent's processor time for one, of which other programs on the machine take nothing.
"""

from __future__ import annotations

import http.client
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from p2pstore.agent.cache_calls import ITEMS
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.launch import ensure_agent, stop_agent
from p2pstore.settings.settings import Settings

FEW, MANY = 10, 10_000
SCRAPES = 300
FORMATS = {"text": "text/plain; version=0.0.4", "openmetrics": "application/openmetrics-text; version=1.0.0"}


def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else MANY
    for objects in (FEW, many):
        with tempfile.TemporaryDirectory() as directory:
            measure(Path(directory), objects)


def measure(directory: Path, objects: int) -> None:
    home = Home.resolve(directory / "home", {})
    flags = {"home": str(home.root), "metadata": f"memory://bench-{objects}", "metrics": "127.0.0.1:0"}
    ensure_agent(home, Settings.load(flags, environ=dict(os.environ), cwd=directory))
    try:
        client = AgentClient(home)
        files = directory / "files"
        files.mkdir()
        items = []
        for number in range(objects):
            path = files / f"{number:05}"
            path.write_bytes(b"%d" % number)
            items.append((str(path), f"o/{number:05}"))
        for first in range(0, objects, ITEMS):
            for event in client.register_many(
                items[first : first + ITEMS], chunk_size=None, hash_name="xxh3_128", force=False
            ):
                assert not event.get("failed"), event
        status = client.status()
        assert status["objects"] == objects, status
        pid = int(status["pid"])
        for name, accept in FORMATS.items():
            before = processor_seconds(pid)
            taken = scrapes(status["metrics"], accept)
            each = 1000 * (processor_seconds(pid) - before) / SCRAPES
            report(f"{objects:,} objects, {name}", taken, each)
    finally:
        stop_agent(home)


def scrapes(url: str, accept: str) -> list[float]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    taken = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        connection.request("GET", parts.path, headers={"Accept": accept})
        answer = connection.getresponse()
        body = answer.read()
        taken.append(time.perf_counter() - began)
        assert answer.status == 200
        assert b"mooncake_agent_objects" in body
    connection.close()
    return taken


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(what: str, seconds: list[float], processor: float) -> None:
    taken = sorted(1000 * each for each in seconds)
    late = taken[int(0.99 * len(taken))]
    print(f"{what:<28} median {statistics.median(taken):.2f} ms, 99th percentile {late:.2f} ms; ", end="")
    print(f"processor {processor:.2f} ms")


if __name__ == "__main__":
    main()
