"""One to many by others: the same broadcast by libtorrent, and by curl from the seed alone, in turns with ours.

::

    python benchmarks/broadcast_peers.py --receivers 8 --size 256MiB --rate 200mbit --rounds 3          # as root
    python benchmarks/broadcast_peers.py --only ours,libtorrent --receivers 16

Each round takes every contender once, in a new random order, in namespaces made alike (``p2pstore.bench.namespaces``),
with copies in memory. Time runs from the moment at which all receivers, up and idle, are told to begin, until the last
of them has the whole object; afterwards every copy is compared with the source. Without ``--rate`` everybody is on
loopback, which shows that it works and measures nothing.

libtorrent (``pip install libtorrent``) runs with its default settings, over TCP, in pieces as large as our chunks. What
finds peers is off: each is told of all the others, so that no tracker is waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import functools
import http.server
import importlib.util
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from counts import as_count

from engine.processes import processor_seconds
from p2pstore.bench.broadcast import broadcast
from p2pstore.bench.broadcast_outcome import BroadcastPlan
from p2pstore.bench.memory import Reserve, directory_in_memory
from p2pstore.bench.places import Limited, Loopback, Places
from p2pstore.bench.processors import ProcessorTime, busy_share
from p2pstore.objects.manifest import choose_chunk_size
from p2pstore.objects.units import parse_link_rate, parse_size

PATIENCE_SECONDS = 120.0
PATIENCE = 4.0
"""A run that takes longer than the first and so many times what the seed alone would take has failed."""

ANSWER_SECONDS = 60.0
"""For a process to be up, or to end."""

POLL_SECONDS = 0.005
BLOCK = 1 << 20


@dataclass(frozen=True)
class Task:
    """What is to be brought to whom: ``size`` in bytes, ``rate`` in bytes a second, 0 for loopback."""

    receivers: int
    size: int
    rate: float

    @property
    def patience(self) -> float:
        """Seconds after which it has failed."""
        alone = self.receivers * self.size / self.rate if self.rate else 0.0
        return max(PATIENCE_SECONDS, PATIENCE * alone)


@dataclass(frozen=True)
class Figures:
    """Of one run: the last receiver's seconds, what the seed sent over the object's size, and the processors' part."""

    last: float
    seed_ratio: float
    seconds_per_gb: float
    busy: float | None


class Field:
    """The hosts of one run, a directory with the source in it, and what the processors did while it ran."""

    def __init__(self, task: Task, places: Places, directory: Path) -> None:
        self.task = task
        self.places = places
        self.directory = directory
        self.source = directory / "seed" / "source"
        self.source.parent.mkdir()
        with self.source.open("wb") as file:
            for start in range(0, task.size, BLOCK):
                file.write(os.urandom(min(BLOCK, task.size - start)))

    def address(self, number: int) -> str:
        """Where the others reach a host."""
        return self.places.listen(number) or self.places.hub_address

    def copy(self, number: int) -> Path:
        """Where a receiver's copy is to be."""
        directory = self.directory / f"node{number}"
        directory.mkdir(exist_ok=True)
        return directory / "source"

    def compare(self) -> None:
        """Whether every copy is the source."""
        for number in range(1, self.task.receivers + 1):
            if not filecmp.cmp(self.source, self.copy(number), shallow=False):
                raise SystemExit(f"the copy of receiver {number} differs from the source")


@contextlib.contextmanager
def prepared(task: Task) -> Iterator[Field]:
    """A field for one run; nothing of it is left."""
    with contextlib.ExitStack() as stack:
        memory = directory_in_memory(task.size * (task.receivers + 1)) if task.rate else None
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="mooncake-peers-", dir=memory))
        rates = [task.rate] * (task.receivers + 1)
        places: Places = stack.enter_context(Limited(rates)) if task.rate else Loopback()
        yield Field(task, places, Path(made))


class Child:
    """This script, in another role at one of the hosts. It says a word when it is up, and ends when it is let go."""

    def __init__(self, field: Field, number: int, *role: str) -> None:
        command = field.places.at(number, [sys.executable, str(Path(__file__).resolve()), "--role", *role])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def _said(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def hear(self, patience: float = ANSWER_SECONDS) -> str:
        """Its next line. One that says nothing for so many seconds is killed."""
        impatient = threading.Timer(patience, self.process.kill)
        impatient.start()
        line = self._said.readline()
        impatient.cancel()
        if not line:
            raise SystemExit(f"{self.process.args} ended with status {self.process.wait(ANSWER_SECONDS)}")
        return line.strip()

    def tell(self, line: str) -> None:
        """One line for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        """Let it do what is left to be done, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait(ANSWER_SECONDS):
            raise SystemExit(f"{self.process.args} ended with status {self.process.returncode}")

    def end(self) -> None:
        """Let it go."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(ANSWER_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


# The contenders


def ours(task: Task) -> Figures:
    """Agents of this checkout, as ``mooncake bench broadcast`` runs them."""
    done = broadcast(BroadcastPlan(receivers=task.receivers, size=task.size, rate=task.rate), lambda _: None)
    if not done.ok:
        wrong = [each for each in done.receivers if each.error or not each.equal]
        raise SystemExit("; ".join(f"{each.node}: {each.error or 'differs'}" for each in wrong))
    return Figures(done.last, done.seed_bytes / task.size, done.processor_seconds_per_gb, done.busy)


def libtorrent(task: Task) -> Figures:
    """A peer of libtorrent at each host."""
    with prepared(task) as field, contextlib.ExitStack() as stack:
        described = field.directory / "torrent"
        describing = Child(field, 0, "describe", str(field.source), str(choose_chunk_size(task.size)), str(described))
        stack.callback(describing.end)
        if describing.process.wait(ANSWER_SECONDS):
            raise SystemExit("libtorrent could not describe the source")
        peers = []
        for number in range(task.receivers + 1):
            directory = field.source.parent if number == 0 else field.copy(number).parent
            peers.append(Child(field, number, "torrent", field.address(number), str(directory), str(described)))
            stack.callback(peers[-1].end)
        ports = [peer.hear() for peer in peers]
        everybody = " ".join(f"{field.address(number)}:{port}" for number, port in enumerate(ports))

        def receive(number: int) -> None:
            peers[number].tell(everybody)
            if peers[number].hear(task.patience) != "done":
                raise SystemExit(f"receiver {number} did not finish")

        figures = timed(task, receive, lambda: sum(processor_seconds(peer.process.pid) for peer in peers))
        peers[0].tell("sent")
        sent = int(peers[0].hear())
        for peer in peers:
            peer.finish()  # what it has may not be in its file before
        field.compare()
    return Figures(figures.last, sent / task.size, figures.seconds_per_gb, figures.busy)


def curl(task: Task) -> Figures:
    """A static file server at the seed, and a curl at each receiver."""
    with prepared(task) as field, contextlib.ExitStack() as stack:
        server = Child(field, 0, "server", field.address(0), str(field.source.parent))
        stack.callback(server.end)
        url = f"http://{field.address(0)}:{server.hear()}/source"
        spent: list[float] = []

        def receive(number: int) -> None:
            command = ["curl", "--silent", "--show-error", "--fail", "--output", str(field.copy(number)), url]
            process = subprocess.Popen(field.places.at(number, command))
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            spent.append(usage.ru_utime + usage.ru_stime)
            if process.returncode:
                raise SystemExit(f"curl of receiver {number} ended with status {process.returncode}")

        figures = timed(task, receive, lambda: sum(spent) + processor_seconds(server.process.pid))
        field.compare()
    return Figures(figures.last, float(task.receivers), figures.seconds_per_gb, figures.busy)


CONTENDERS: dict[str, Callable[[Task], Figures]] = {"ours": ours, "libtorrent": libtorrent, "curl": curl}


def timed(task: Task, receive: Callable[[int], None], spent: Callable[[], float]) -> Figures:
    """Let all receivers begin at once; the figures but for what the seed sent. ``spent``: processor seconds so far."""
    Reserve(task.size * task.receivers if task.rate else 0).close()
    ready = threading.Barrier(task.receivers + 1)
    ends: dict[int, float] = {}
    failures: list[str] = []

    def run(number: int) -> None:
        ready.wait()
        try:
            receive(number)
        except SystemExit as error:
            failures.append(str(error))
        else:
            ends[number] = time.monotonic()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(1, task.receivers + 1)]
    for thread in threads:
        thread.start()
    before, at_first = ProcessorTime.now(), spent()
    ready.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join(max(0.0, began + task.patience - time.monotonic()))
    busy, seconds = busy_share(before, ProcessorTime.now()), spent() - at_first
    if len(ends) < task.receivers:
        raise SystemExit("\n".join([f"{len(ends)} of {task.receivers} receivers have it", *failures]))
    per_gb = seconds / (task.size * task.receivers / 1e9)
    return Figures(max(ends.values()) - began, 0.0, per_gb, busy)


# What runs at a host


def describe_role(source: str, piece: str, described: str) -> None:
    """Write what peers need to know of the source."""
    import libtorrent as lt  # noqa: PLC0415 - the other roles do without

    creator = lt.create_torrent(lt.list_files(source), piece_size=int(piece), flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(creator, str(Path(source).parent))
    Path(described).write_bytes(lt.bencode(creator.generate()))


def torrent_role(address: str, directory: str, described: str) -> None:
    """A peer: says its port, is told of the others, says when it has everything, and later what it has sent."""
    import libtorrent as lt  # noqa: PLC0415 - the other roles do without

    off = ("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp", "enable_outgoing_utp", "enable_incoming_utp")
    settings = dict.fromkeys(off, False)
    # On loopback all have one address.
    settings |= {"listen_interfaces": f"{address}:0", "allow_multiple_connections_per_ip": True}
    settings["alert_mask"] = lt.alert.category_t.storage_notification
    session = lt.session(settings)
    torrent = lt.load_torrent_file(described)
    torrent.save_path = directory
    handle = session.add_torrent(torrent)
    looked = (lt.torrent_status.seeding, lt.torrent_status.downloading)
    while not session.listen_port() or handle.status().state not in looked:
        time.sleep(POLL_SECONDS)
    print(session.listen_port(), flush=True)
    for line in sys.stdin:
        if line.strip() == "sent":
            print(handle.status().total_payload_upload, flush=True)
            continue
        for peer in line.split():
            host, _, port = peer.rpartition(":")
            if (host, int(port)) != (address, session.listen_port()):
                handle.connect_peer((host, int(port)))
        while not handle.status().is_seeding:
            time.sleep(POLL_SECONDS)
        print("done", flush=True)
    session.pause()
    handle.flush_cache()
    deadline = time.monotonic() + ANSWER_SECONDS / 2
    while not any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
        if time.monotonic() > deadline:
            raise SystemExit("libtorrent has not written what it has")
        session.wait_for_alert(int(1000 * POLL_SECONDS))


def server_role(address: str, directory: str) -> None:
    """A server of one directory: says its port."""
    handler = functools.partial(_QuietHandler, directory=directory)
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


ROLES: dict[str, Callable[..., None]] = {"describe": describe_role, "torrent": torrent_role, "server": server_role}


# The table


def missing(name: str) -> str:
    """Why a contender cannot run here; empty when it can."""
    if name == "libtorrent" and importlib.util.find_spec("libtorrent") is None:
        return "libtorrent is not installed: pip install libtorrent"
    if name == "curl" and shutil.which("curl") is None:
        return "there is no curl"
    return ""


def summed_up(task: Task, found: dict[str, list[Figures]]) -> dict[str, dict[str, Any]]:
    """Of each contender the medians, and the lowest and highest time; times are over S/B where cards are limited."""
    unit = task.size / task.rate if task.rate else 1.0
    rows = {}
    for name, runs in found.items():
        lasts = [run.last / unit for run in runs]
        busy = [run.busy for run in runs if run.busy is not None]
        rows[name] = {
            "last": round(statistics.median(lasts), 3),
            "lowest": round(min(lasts), 3),
            "highest": round(max(lasts), 3),
            "seed_ratio": round(statistics.median(run.seed_ratio for run in runs), 3),
            "seconds_per_gb": round(statistics.median(run.seconds_per_gb for run in runs), 2),
            "busy": round(statistics.median(busy), 3) if busy else None,
        }
    return rows


def table(task: Task, rows: dict[str, dict[str, Any]]) -> str:
    """For people, and for a document."""
    unit = "last receiver over S/B" if task.rate else "last receiver, s"
    heading = f"| {task.receivers} receivers | {unit} | lowest to highest | the seed sent | processor s/GB | busy |"
    lines = [heading, "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        busy = "" if row["busy"] is None else f"{100 * row['busy']:.0f}%"
        spread = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        figures = f"{row['last']:.2f} | {spread} | {row['seed_ratio']:.2f} | {row['seconds_per_gb']:.1f} | {busy}"
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--receivers", type=as_count, default=8)
    parser.add_argument("--size", type=parse_size, default=256 << 20)
    parser.add_argument("--rate", type=parse_link_rate, default=0.0)
    parser.add_argument("--rounds", type=as_count, default=3)
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, with commas")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        ROLES[options.role[0]](*options.role[1:])
        return
    names = options.only.split(",")
    for name in names:
        if name not in CONTENDERS:
            parser.error(f"there is no contender {name!r}; there are {', '.join(CONTENDERS)}")
        if why := missing(name):
            parser.error(why)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users have bytecode
    task = Task(options.receivers, options.size, options.rate)
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in random.sample(names, len(names)):
            found[name].append(CONTENDERS[name](task))
            print(f"round {number + 1}: {name} {found[name][-1].last:.2f} s", file=sys.stderr)
    rows = summed_up(task, found)
    document = {"receivers": task.receivers, "size": task.size, "rate": task.rate, "rows": rows}
    print(json.dumps(document) if options.json else table(task, rows))


if __name__ == "__main__":
    main()
