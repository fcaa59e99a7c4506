"""How fast get and register are, beside the tools that people use now: one run, interleaved, ratios of medians.

::

    python benchmarks/copy_speed.py [--mib 2048] [--rounds 5] [--json]

Files lie in /dev/shm, so that no disk is measured. Each round runs every contender once, in a new random order; what is
not installed is left out and said so. Compared: ``get --transport tcp`` with curl from nginx (file to file over
loopback), iperf3 (no file) and the real Mooncake Transfer Engine (from one file's mapping into another's); ``get
--transport local`` with cp; ``register`` with xxhsum -H2. ``get`` and ``register`` are timed as whole commands, the
start of Python included, and a second time by the ``seconds`` that they report: what the agent needed. Beside the time
stands what a GB took of the processors: the command and whatever serves it, agents, nginx or engine, together. No two
chunks of the file are equal: ``get`` would move one of them, and not the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counts import as_count

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
COMMAND_TIMEOUT = 300.0
TICKS = os.sysconf("SC_CLK_TCK")
BLOCK = 16 << 20
PAIRS = [
    ("get tcp", "curl", 1.6),
    ("get tcp, agent", "curl", None),
    ("get tcp", "mooncake engine", 3.0),
    ("get tcp", "iperf3", None),
    ("get local", "cp", 1.3),
    ("get local, agent", "cp", None),
    ("register", "xxhsum -H2", 0.9),
    ("register, agent", "xxhsum -H2", None),
]
"""(ours, theirs, what we aim for: theirs' seconds over ours, whole command against whole command)"""

PROCESSOR_AIM = 1.0
"""Seconds that all processors together may take for a GB of a ``get``."""


def run(*command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its failure is ours."""
    done = subprocess.run(command, check=False, text=True, capture_output=True, timeout=COMMAND_TIMEOUT, **more)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return done


def mooncake(home: Path, *arguments: str) -> dict[str, Any]:
    """One mooncake command with --json."""
    command = [sys.executable, "-m", "mooncake_cli", "--home", str(home), *arguments, "--json"]
    return json.loads(run(*command).stdout)


def processor_seconds(servers: list[int]) -> float:
    """What the commands that have ended took of the processors, and so far these processes with their children."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(_of_process(pid) for pid in servers)


def _of_process(pid: int) -> float:
    process = Path(f"/proc/{pid}")
    try:
        fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children = [each for task in process.glob("task/*/children") for each in task.read_text("ascii").split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(_of_process(int(child)) for child in children)


class Bench:
    """Two agents, nginx, an iperf3 server and a file, in one scratch directory of /dev/shm."""

    def __init__(self, mib: int) -> None:
        self.size = mib << 20
        self.dir = Path(tempfile.mkdtemp(prefix="mooncake-bench-", dir="/dev/shm"))
        self.source = self.dir / "source.bin"
        self.dest = self.dir / "dest.bin"
        self.skipped: dict[str, str] = {}
        self.agent_seconds: dict[str, list[float]] = {}
        self.processor: dict[str, list[float]] = {}
        self._servers: list[int] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        with self.source.open("wb") as file:
            for done in range(0, self.size, BLOCK):
                file.write(os.urandom(min(BLOCK, self.size - done)))
        self.contenders = dict(self._contenders())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _contenders(self) -> Iterator[tuple[str, Callable[[], float | None]]]:
        homes = self.dir / "a", self.dir / "b"
        for home in homes:
            self._stack.callback(
                subprocess.run,
                [sys.executable, "-m", "mooncake_cli", "--home", str(home), "node", "stop"],
                capture_output=True,
                check=False,
            )
        first = mooncake(homes[0], "node", "start")
        second = mooncake(homes[1], "--metadata", first["metadata"], "node", "start")
        self._servers += first["pid"], second["pid"]
        mooncake(homes[0], "register", str(self.source), "--name", "bench")

        def get(transport: str) -> Callable[[], float | None]:
            arguments = ["get", "bench", str(self.dest), "--transport", transport, "--no-seed"]
            return self._ours(f"get {transport}", homes[1], *arguments)

        yield "get tcp", self._to_dest("get tcp", get("tcp"))
        yield "get local", self._to_dest("get local", get("local"))
        register = self._ours("register", homes[0], "register", str(self.source), "--name", "bench")
        yield "register", self._timed("register", register)
        yield from self._tools()
        yield from self._upstream()

    def _tools(self) -> Iterator[tuple[str, Callable[[], float | None]]]:
        yield "cp", self._to_dest("cp", lambda: run("cp", str(self.source), str(self.dest)) and None)
        if self._has("xxhsum", "xxhash"):
            yield "xxhsum -H2", self._timed("xxhsum -H2", lambda: run("xxhsum", "-H2", str(self.source)) and None)
        if self._has("nginx", "nginx-light") and self._has("curl", "curl"):
            port = self._nginx()
            url = f"http://127.0.0.1:{port}/{self.source.name}"
            yield "curl", self._to_dest("curl", lambda: run("curl", "-sfo", str(self.dest), url) and None)
        if self._has("iperf3", "iperf3"):
            port = free_port()
            self._serve(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(port)], port)
            yield "iperf3", lambda: self._iperf(port)

    def _upstream(self) -> Iterator[tuple[str, Callable[[], float | None]]]:
        probe = subprocess.run([sys.executable, "-c", "import mooncake.engine"], capture_output=True, check=False)
        if probe.returncode:
            self.skipped["mooncake engine"] = "pip install mooncake-transfer-engine-non-cuda"
            return
        script = [sys.executable, str(HERE / "upstream_copy.py")]
        environment = {
            **os.environ,
            "MC_FORCE_TCP": "1",
            "MC_TCP_BIND_ADDRESS": "127.0.0.1",
            "MC_TCP_ENABLE_CONNECTION_POOL": "1",
        }
        target = subprocess.Popen(
            [*script, "serve", str(self.source)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._servers.append(target.pid)
        self._stack.callback(target.wait, 20)
        self._stack.callback(target.terminate)
        where = next(line for line in target.stdout or () if line.startswith("serving "))
        _, segment, address = where.split()

        def copy() -> float:
            copied = run(*script, "copy", segment, address, str(self.size), str(self.dest), env=environment)
            return float(next(x for x in copied.stdout.splitlines() if x.startswith("seconds ")).split()[1])

        yield "mooncake engine", self._to_dest("mooncake engine", copy)

    def _ours(self, name: str, home: Path, *arguments: str) -> Callable[[], float | None]:
        """One of our commands; what the agent says that it needed is noted beside."""

        def work() -> None:
            self.agent_seconds.setdefault(f"{name}, agent", []).append(float(mooncake(home, *arguments)["seconds"]))

        return work

    def _has(self, tool: str, package: str) -> bool:
        if shutil.which(tool) is None:
            self.skipped[tool] = f"apt-get install {package}"
            return False
        return True

    def _timed(self, name: str, work: Callable[[], float | None]) -> Callable[[], float]:
        """Time ``work``, or take the seconds that it says; note what the processors did meanwhile."""

        def measure() -> float:
            spent = processor_seconds(self._servers)
            began = time.perf_counter()
            own = work()
            seconds = own if own is not None else time.perf_counter() - began
            self.processor.setdefault(name, []).append(processor_seconds(self._servers) - spent)
            return seconds

        return measure

    def _to_dest(self, name: str, work: Callable[[], float | None]) -> Callable[[], float]:
        """Time a copy to ``dest``, which is new each time and compared afterwards.

        A virtual machine gives free memory back to its host within seconds, and getting it again costs more than the
        copy does. So as much as the copy needs is taken and freed just before: every contender finds it at hand.
        """
        measure = self._timed(name, work)
        zeros = bytes(1 << 20)

        def copy() -> float:
            with self.dest.open("wb") as file:
                for _ in range(0, self.size, len(zeros)):
                    file.write(zeros)
            self.dest.unlink()
            seconds = measure()
            run("cmp", str(self.source), str(self.dest))
            self.dest.unlink()
            return seconds

        return copy

    def _nginx(self) -> int:
        port = free_port()
        config = self.dir / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 2; pid {self.dir}/nginx.pid; error_log {self.dir}/nginx.log;\n"
            f"user {'root' if os.geteuid() == 0 else 'nobody'}; events {{ worker_connections 64; }}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on;\n"
            f"server {{ listen 127.0.0.1:{port}; root {self.dir}; }} }}\n"
        )
        self._serve(["nginx", "-e", f"{self.dir}/nginx.log", "-c", str(config)], port)
        return port

    def _serve(self, command: list[str], port: int) -> None:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._servers.append(process.pid)
        self._stack.callback(process.wait, 20)
        self._stack.callback(process.terminate)
        wait_for_port(port)

    def _iperf(self, port: int) -> float:
        """Seconds that iperf3 needs for as many bytes, by its own rate at the receiver over three seconds."""
        result = json.loads(run("iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "3", "-J").stdout)
        return self.size * 8 / float(result["end"]["sum_received"]["bits_per_second"])


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Until somebody accepts there, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


def main() -> int:
    """Run, print a table of medians and one of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=as_count, default=2048, help="size of the file (default 2048)")
    parser.add_argument("--rounds", type=as_count, default=5, help="rounds counted, after one that is not (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    with Bench(args.mib) as bench:
        times: dict[str, list[float]] = {name: [] for name in bench.contenders}
        for number in range(args.rounds + 1):
            for name in random.sample(list(bench.contenders), len(bench.contenders)):
                seconds = bench.contenders[name]()
                print(f"round {number} {name}: {seconds:.2f} s", file=sys.stderr)
                if number:
                    times[name].append(seconds)
        times |= {name: found[1:] for name, found in bench.agent_seconds.items()}
        medians = {name: statistics.median(found) for name, found in times.items()}
        ratios = [
            {"ours": a, "theirs": b, "ratio": medians[b] / medians[a], "aim": aim}
            for a, b, aim in PAIRS
            if a in medians and b in medians
        ]
        rates = {name: bench.size / 1e9 / seconds for name, seconds in medians.items()}
        spent = {name: statistics.median(found[1:]) * 1e9 / bench.size for name, found in bench.processor.items()}
        if args.json:
            print(
                json.dumps(
                    {
                        "bytes": bench.size,
                        "seconds": times,
                        "gb_per_s": rates,
                        "processor_seconds_per_gb": spent,
                        "ratios": ratios,
                        "skipped": bench.skipped,
                    }
                )
            )
            return 0
        for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]):
            low, high = min(times[name]), max(times[name])
            took = f"   processor {spent[name]:.2f} s/GB" if name in spent else ""
            print(f"{name:16} {rate:6.2f} GB/s   seconds min {low:.2f} median {medians[name]:.2f} max {high:.2f}{took}")
        for row in ratios:
            aim = f"   (aim {row['aim']})" if row["aim"] else ""
            print(f"{row['ours']:10} is {row['ratio']:.2f} times as fast as {row['theirs']}{aim}")
        for name in ("get tcp", "get local"):
            print(f"{name:10} takes {spent[name]:.2f} s of all processors for a GB   (aim {PROCESSOR_AIM})")
        for name, advice in bench.skipped.items():
            print(f"left out: {name} ({advice})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
