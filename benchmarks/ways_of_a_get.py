"""Whether the ways that a get chooses by itself are the best here, and where its processor time goes.

::

    python benchmarks/ways_of_a_get.py [--mib 1024] [--rounds 4] [--only file,shards] [--connections 4,8] [--json]
    python benchmarks/ways_of_a_get.py --profile [--mib 2048]        # with Linux's perf, as root

An agent serves one object as a file and one as eight shards, of /dev/shm; a node of this program gets them, to files
in /dev/shm, to memory that was touched before, and to files on ``--disk``. Each round takes every way once, in a new
random order: what ``p2pstore/pull/tuning.py`` chooses, and others set by hand; beside the files, ``cp`` of one, or of
eight at once. Told are medians of seconds for a GB, of what all processes took of the processors for it, and how far
the choice is from the best that is set by hand.

``--profile`` says of the chosen ways what both processes did in that time, by perf's samples of their stacks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from counts import as_count, as_counts

if TYPE_CHECKING:
    from typing_extensions import Self

TICKS = os.sysconf("SC_CLK_TCK")
BLOCK = 16 << 20
SHARDS = 8
TRANSPORTS = ("tcp", "local")
PLACES = ("file", "shards", "memory", "disk")
CHOSEN = "chosen"
CP = "cp"
COPIED = ("file", "shards")
"""Places to which ``cp`` brings the same."""

COMMAND_TIMEOUT = 300.0
HERTZ = 999
"""Samples of a running thread in a second."""

KINDS: Sequence[tuple[str, Sequence[str]]] = (
    ("hash", ("XXH3", "_xxhash", "XXH")),
    ("first touch of memory", ("asm_exc_page_fault", "do_user_addr_fault", "handle_mm_fault")),
    ("send: sendfile, and TCP's work for the receiver", ("sendfile", "splice_to_socket", "tcp_sendmsg")),
    ("copy out of the kernel", ("_copy_to_iter", "__check_object_size")),
    ("TCP of the receiver: acknowledgements, buffers", ("tcp_recvmsg", "inet_recvmsg", "sock_recvmsg")),
    ("copy into the file", ("copy_folio_from_iter_atomic", "copy_page_from_iter_atomic")),
    ("pages of the file: found, charged, listed", ("vfs_write", "generic_perform_write", "ksys_pwrite64")),
    ("read of the file", ("vfs_read", "do_preadv", "filemap_read", "shmem_file_read_iter")),
    ("waits and wake-ups", ("schedule", "futex", "do_sys_poll", "ep_poll", "try_to_wake_up", "epoll_wait")),
    ("Python", ("libpython", "python3", "/python")),
)
"""What a sample counts as: the first kind of whose words one of its frames has one."""

INNERMOST = {"copy out of the kernel", "copy into the file", "hash", "Python"}
"""Kinds that only the innermost frame tells of."""


class Way(NamedTuple):
    """How a get is told to go about it: workers for a source, and the bytes that each receives into."""

    connections: int
    piece: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.connections} connections, {self.piece >> 10} KiB"


def ways(cores: int, counts: Sequence[int] = ()) -> list[Way]:
    """What the choice is compared with: so many connections, or those that the cores make worth a look."""
    if counts:
        return [Way(n, 1 << 20) for n in counts]
    counts = [n for n in (1, 2, 3, 4, 8, 12) if n <= max(4, cores)]
    return [Way(n, 1 << 20) for n in counts] + [Way(2, piece) for piece in (1 << 18, 1 << 19, 1 << 22)]


def kind_of(frames: Sequence[str]) -> str:
    """What a sample was about; ``frames`` from the innermost outward, each with the object that it is in."""
    for kind, words in KINDS:
        looked = frames[:1] if kind in INNERMOST else frames
        if any(word in frame for frame in looked for word in words):
            return kind
    return "other"


def stacks(lines: Iterable[str]) -> Iterator[list[str]]:
    """The stacks of what ``perf script -F ip,sym,dso`` prints, each from the innermost frame outward."""
    frames: list[str] = []
    for line in lines:
        if line.strip():
            frames.append(line.strip())
        elif frames:
            yield frames
            frames = []
    if frames:
        yield frames


# The node that gets


def receiver(metadata: str) -> None:
    """Get what each line of the standard input asks for; a line of JSON says what it took."""
    import p2pstore.pull.run as run  # noqa: PLC0415 - of the process that gets
    from p2pstore.pull.tuning import Tuning  # noqa: PLC0415 - as above
    from p2pstore.store import P2PStore  # noqa: PLC0415 - as above

    chooses = run.tuned
    memory = bytearray()
    with P2PStore(metadata, node="receiver") as store:
        print("ready", flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            by_hand = asked["way"] and Tuning(asked["way"][0], asked["way"][0], asked["way"][1], asked["way"][1])
            run.tuned = lambda *given, by_hand=by_hand: by_hand or chooses(*given)
            if asked["memory"] != len(memory):
                memory = bytearray(b"\1") * asked["memory"]
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            if asked["memory"]:
                store.get_into(asked["name"], memory, transport=asked["transport"])
            else:
                store.get(asked["name"], asked["dest"], transport=asked["transport"], seed=False)
            seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(json.dumps({"seconds": seconds, "processor": spent}), flush=True)


# The bench


class Bench:
    """An agent that serves, a node that gets, and where it puts things."""

    def __init__(self, mib: int, disk: Path) -> None:
        self.size = mib << 20
        self.dir = Path(tempfile.mkdtemp(prefix="mooncake-ways-", dir="/dev/shm"))
        self.on_disk = Path(tempfile.mkdtemp(prefix="mooncake-ways-", dir=disk))
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self._stack.callback(shutil.rmtree, self.on_disk, ignore_errors=True)
        source = self.dir / "source.bin"
        write(source, self.size)
        (self.dir / "shards").mkdir()
        for number in range(SHARDS):
            write(self.dir / "shards" / f"model-{number}.bin", self.size // SHARDS)
        started = self._agent("node", "start")
        self._stack.callback(self._agent, "node", "stop")
        self.agent = int(started["pid"])
        self._agent("register", str(source), "--name", "file")
        self._agent("register", str(self.dir / "shards"), "--name", "shards")
        command = [sys.executable, __file__, "--receiver", started["metadata"]]
        self.node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(self._end)
        self._line()
        write(self.dir / "taken", self.size)  # so that what is got finds memory at hand
        (self.dir / "taken").unlink()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        assert self.node.stdin is not None
        self.node.stdin.close()
        self.node.wait(COMMAND_TIMEOUT)

    def _agent(self, *words: str) -> Any:
        command = [sys.executable, "-m", "mooncake_cli", "--home", str(self.dir / "home"), *words, "--json"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
        return json.loads(done.stdout)

    def _line(self) -> str:
        assert self.node.stdout is not None
        line = self.node.stdout.readline()
        if not line:
            raise SystemExit("the node that gets has ended")
        return line

    def get(self, place: str, transport: str, way: Way | None, *, compare: bool = False) -> dict[str, float]:
        """One get: its seconds, and what both processes took of the processors."""
        name = "shards" if place == "shards" else "file"
        dest = (self.on_disk if place == "disk" else self.dir) / "dest"
        asked = {
            "name": name,
            "dest": str(dest),
            "transport": transport,
            "way": way,
            "memory": self.size if place == "memory" else 0,
        }
        before = seconds_of(self.agent)
        assert self.node.stdin is not None
        self.node.stdin.write(json.dumps(asked) + "\n")
        self.node.stdin.flush()
        found: dict[str, float] = json.loads(self._line())
        found["processor"] += seconds_of(self.agent) - before
        if place != "memory":
            self._end_copy(name, dest, compare=compare)
        return self._for_a_gb(found)

    def cp(self, name: str, *, compare: bool = False) -> dict[str, float]:
        """The same by ``cp``, of the shards all at once."""
        source, dest = self._original(name), self.dir / "dest"
        pairs = [(source, dest)]
        if name == "shards":
            dest.mkdir()
            pairs = [(each, dest / each.name) for each in source.iterdir()]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        copies = [subprocess.Popen(["cp", str(one), str(other)]) for one, other in pairs]
        statuses = [copy.wait(COMMAND_TIMEOUT) for copy in copies]
        if any(statuses):
            raise SystemExit("cp failed")
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._end_copy(name, dest, compare=compare)
        return self._for_a_gb({"seconds": seconds, "processor": spent})

    def _original(self, name: str) -> Path:
        return self.dir / ("shards" if name == "shards" else "source.bin")

    def _end_copy(self, name: str, dest: Path, *, compare: bool) -> None:
        if compare:
            subprocess.run(["diff", "-r", str(self._original(name)), str(dest)], check=True)
        shutil.rmtree(dest) if dest.is_dir() else dest.unlink()

    def _for_a_gb(self, found: Mapping[str, float]) -> dict[str, float]:
        return {figure: seconds * 1e9 / self.size for figure, seconds in found.items()}


def write(path: Path, size: int) -> None:
    """A file without equal chunks: of those ``get`` moves one."""
    with path.open("wb") as file:
        for done in range(0, size, BLOCK):
            file.write(os.urandom(min(BLOCK, size - done)))


def seconds_of(pid: int) -> float:
    """Processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def compare(bench: Bench, places: Sequence[str], rounds: int, counts: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Every way to every place, in turns; a first round is not counted, and what it brought is compared."""
    by_hand = ways(len(os.sched_getaffinity(0)), counts)
    choices: dict[str, Way | None] = {CHOSEN: None, **{way.name: way for way in by_hand}}
    cases = [(place, transport, name) for place in places for transport in TRANSPORTS for name in choices]
    cases += [(place, "local", CP) for place in places if place in COPIED]
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for place, transport, name in random.sample(cases, len(cases)):
            if name == CP:
                figures = bench.cp(place, compare=not number)
            else:
                figures = bench.get(place, transport, choices[name], compare=not number)
            if number:
                found[place, transport, name].append(figures)
        print(f"round {number} of {rounds}", file=sys.stderr)
    rows = []
    for place in places:
        for transport in TRANSPORTS:
            here = {name: figures for (*where, name), figures in found.items() if where == [place, transport]}
            rows.append(rated(place, transport, here))
    return rows


def rated(place: str, transport: str, found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """The medians of each way, the quickest of those set by hand, and its seconds over those of the choice."""
    medians = {
        name: {figure: statistics.median(each[figure] for each in rounds) for figure in ("seconds", "processor")}
        for name, rounds in found.items()
    }
    by_hand = {name: figures["seconds"] for name, figures in medians.items() if name not in {CHOSEN, CP}}
    best = min(by_hand, key=lambda name: by_hand[name])
    ratio = by_hand[best] / medians[CHOSEN]["seconds"]
    return {"place": place, "transport": transport, "ways": medians, "best": best, "ratio": ratio}


def profile(bench: Bench, places: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """What both processes took of the processors for a GB, by what they did."""
    return [profiled(bench, place, transport, rounds) for place in places for transport in TRANSPORTS]


def profiled(bench: Bench, place: str, transport: str, rounds: int) -> dict[str, Any]:
    """The same of one way."""
    bench.get(place, transport, None)
    data = bench.dir / "perf.data"
    command = ["perf", "record", "-q", "-F", str(HERTZ), "-g", "-o", str(data), "-p", f"{bench.agent},{bench.node.pid}"]
    recorder = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)  # for perf to be attached; a little less is recorded where it is not yet
        spent = statistics.mean(bench.get(place, transport, None)["processor"] for _ in range(rounds))
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(COMMAND_TIMEOUT)
    printed = subprocess.run(
        ["perf", "script", "-F", "ip,sym,dso", "-i", str(data)],
        check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT,
    )  # fmt: skip
    data.unlink()
    kinds = Counter(kind_of(frames) for frames in stacks(printed.stdout.splitlines()))
    if not kinds:
        raise SystemExit("perf recorded nothing")
    parts = {kind: spent * count / kinds.total() for kind, count in kinds.most_common()}
    return {"place": place, "transport": transport, "processor": spent, "samples": kinds.total(), "parts": parts}


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=as_count, default=1024, help="size of each object (default 1024)")
    parser.add_argument("--rounds", type=as_count, default=4, help="rounds counted, after one that is not (default 4)")
    parser.add_argument("--only", default=",".join(PLACES), help=f"some of: {', '.join(PLACES)} (default: all)")
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="where 'disk' is (default /var/tmp)")
    parser.add_argument(
        "--connections", type=as_counts, default=[], help="counts to compare with, such as 4,8 (default: by the cores)"
    )
    parser.add_argument("--profile", action="store_true", help="say where the processor time goes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    places = options.only.split(",")
    if unknown := set(places) - set(PLACES):
        parser.error(f"no such place: {', '.join(sorted(unknown))}")
    if options.profile and shutil.which("perf") is None:
        parser.error("perf is not installed: apt-get install linux-perf")
    with Bench(options.mib, options.disk) as bench:
        if options.profile:
            rows = profile(bench, places, options.rounds)
        else:
            rows = compare(bench, places, options.rounds, options.connections)
    if options.json:
        print(json.dumps({"mib": options.mib, "rounds": options.rounds, "rows": rows}))
    elif options.profile:
        print_parts(rows)
    else:
        print_ways(rows)
    return 0


def print_ways(rows: Sequence[Mapping[str, Any]]) -> None:
    """A line a way."""
    for row in rows:
        print(
            f"{row['place']} over {row['transport']}: the choice has {row['ratio']:.2f} times the best by hand's rate"
        )
        for name, figures in row["ways"].items():
            mark = "  <- best by hand" if name == row["best"] else ""
            print(f"  {name:<26}{figures['seconds']:6.2f} s/GB, processors {figures['processor']:.2f} s/GB{mark}")


def print_parts(rows: Sequence[Mapping[str, Any]]) -> None:
    """A line a kind of work, a column a way."""
    kinds = [kind for kind, _ in KINDS] + ["other"]
    columns = [f"{row['place']}, {row['transport']}" for row in rows]
    print(f"{'processor seconds for a GB':<50}" + "".join(f"{column:>16}" for column in columns))
    print(f"{'all':<50}" + "".join(f"{row['processor']:>16.2f}" for row in rows))
    for kind in kinds:
        print(f"{kind:<50}" + "".join(f"{row['parts'].get(kind, 0.0):>16.3f}" for row in rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--receiver"]:
        receiver(sys.argv[2])
    else:
        sys.exit(main())
