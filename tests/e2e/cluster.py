"""Whole systems for the tests: agents in processes of their own, started, driven and killed as a user would.

A ``Cluster`` is a directory with the homes of its agents in it. Everything that it starts, and whatever that starts in
turn (background agents, their etcds), carries the cluster's mark in its environment; ``close`` finds every living
process with that mark and ends it, so that nothing outlives a test, however it failed.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.processes import state
from p2pstore.agent.client import AgentClient
from p2pstore.agent.embedded_etcd import find_etcd
from p2pstore.agent.home import Home
from p2pstore.pull.workplace import work_name
from tests.ports import reserved_port

ROOT = Path(__file__).resolve().parents[2]

MARK = "MOONCAKE_TEST_CLUSTER"
"""Environment variable that tells a cluster's processes from all others."""

PATIENCE = 150.0
"""Seconds that ``eventually`` waits: far longer than anything takes, so that only a defect fails a test. On a busy machine
one command takes half a minute, and what is waited for often takes several."""

COMMAND_TIMEOUT = 200.0
"""Seconds for one command."""

LEASE_TTL = 10
"""Seconds until a killed node disappears; on a busy machine one that lives stands still for some."""

HALTING_RATE = 4_000_000
"""Bytes a second that sources send to a get that is to be halted."""

HALTED_RATE = 4096
"""Bytes a second that they send then: so few that it lasts for hours, and so many that the get does not give up."""

POLL = 0.02

T = TypeVar("T")


def eventually(look: Callable[[], T], what: str, *, patience: float = PATIENCE, pause: float = POLL) -> T:
    """Call ``look`` until its answer is true, and return it. An ``AssertionError`` in it means "not yet"."""
    deadline = time.monotonic() + patience
    while True:
        late = time.monotonic() >= deadline  # one look is after the end, whatever stood still before
        last: object = None
        try:
            last = look()
        except AssertionError as error:
            last = error
        else:
            if last:
                return last
        if late:
            raise AssertionError(f"not within {patience:g} s: {what}; at last: {last}")
        time.sleep(pause)


@dataclass(frozen=True)
class Done:
    """A command that ended: what was typed, its exit status, and what it printed."""

    arguments: Sequence[str]
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error that a command with ``--json`` left on standard error, its last line."""
        error: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return error

    def __str__(self) -> str:
        return f"mooncake {' '.join(self.arguments)}\nstatus {self.status}\n{self.out}{self.err}"


class Running:
    """A command that runs meanwhile, in a process group of its own."""

    def __init__(
        self, cluster: Cluster, arguments: Sequence[str], environment: dict[str, str], prefix: Sequence[str] = ()
    ) -> None:
        self.arguments = arguments
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "mooncake_cli", *arguments],
            env=environment,
            cwd=cluster.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        cluster.running.append(self)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def send(self, number: int) -> None:
        """Send a signal; no error when it ended a moment ago."""
        self.process.send_signal(number)

    def close(self) -> None:
        """End it in any case, and give its pipes back."""
        self.process.kill()
        self.process.communicate()

    def wait(self, timeout: float = COMMAND_TIMEOUT) -> Done:
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(
                f"mooncake {' '.join(self.arguments)} did not end in {timeout:g} s\n{out}{err}"
            ) from None
        status = self.process.returncode
        if status == -signal.SIGINT and "Traceback" not in err:
            # A module that Python runs (-m) ends by the signal, whoever has handled that, where it came inside exec() of
            # a text. A console script does not, and to a shell both are the same.
            status = 128 + signal.SIGINT
        return Done(self.arguments, status, out, err)


def ports_of_its_own() -> dict[str, str]:
    """What has an agent listen where nobody else will when it is dead: another test's agent would answer in its place."""
    first = reserved_port(adjacent=3)
    return {"MOONCAKE_LISTEN": f"127.0.0.1:{first}-{first + 2}"}


class Agent:
    """One home, with or without an agent alive in it."""

    def __init__(self, cluster: Cluster, name: str, *, metadata: str | None, environment: dict[str, str]) -> None:
        self.cluster = cluster
        self.name = name
        self.home = cluster.root / "homes" / name
        self.metadata = metadata
        self.environment = {**cluster.environment, "MOONCAKE_NODE": name, **environment}

    # Commands

    def begin(self, *arguments: object, prefix: Sequence[str] = ()) -> Running:
        """Start a command on this home; ``prefix`` is a program that runs it, such as ``setpriv``."""
        given = ["--home", str(self.home)]
        if self.metadata is not None:
            given += ["--metadata", self.metadata]
        return Running(self.cluster, [*given, *map(str, arguments)], self.environment, prefix)

    def run(self, *arguments: object, timeout: float = COMMAND_TIMEOUT) -> Done:
        """Run a command on this home to its end, whatever its status."""
        return self.begin(*arguments).wait(timeout)

    def ok(self, *arguments: object, timeout: float = COMMAND_TIMEOUT) -> Any:
        """Run a command with ``--json`` that must succeed; its document."""
        done = self.run(*arguments, "--json", timeout=timeout)
        assert done.status == 0, f"{done}\n{self.log()}"
        return done.json

    def fails(self, status: int, *arguments: object) -> dict[str, Any]:
        """Run a command that must end with ``status`` and a sentence; the error that it left."""
        done = self.run(*arguments, "--json")
        assert done.status == status, f"{done}\n{self.log()}"
        assert done.out == "", done
        error = done.error
        assert error["exit_code"] == status, done
        assert error["message"], done
        return error

    # Its life

    def start(self, *arguments: object) -> Agent:
        """Start its agent in the background."""
        self.ok("node", "start", *arguments)
        return self

    def stop(self) -> dict[str, Any]:
        """``mooncake node stop``."""
        stopped: dict[str, Any] = self.ok("node", "stop")
        return stopped

    def status(self) -> dict[str, Any]:
        """``mooncake node status``."""
        status: dict[str, Any] = self.ok("node", "status")
        return status

    @property
    def pid(self) -> int:
        """The living agent's pid, from its lock file, which costs no process."""
        return int((self.home / "agent.lock").read_text().split()[0])

    def signal(self, number: int) -> int:
        """Send its agent a signal; the pid."""
        pid = self.pid
        os.kill(pid, number)
        return pid

    def kill(self) -> None:
        """SIGKILL its agent, and wait until it is gone."""
        pid = self.signal(signal.SIGKILL)
        eventually(lambda: not is_alive(pid), f"{self.name} is dead")

    def halt(self) -> int:
        """SIGSTOP its agent, and wait until it stands still; the pid."""
        pid = self.signal(signal.SIGSTOP)
        eventually(lambda: state(pid) == "T", f"{self.name} stands still")
        return pid

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP its agent for a while; it stands still when this begins."""
        pid = self.halt()
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @property
    def etcd_pid(self) -> int | None:
        """The pid of the etcd that its agent started for itself."""
        try:
            return int(json.loads((self.home / "etcd" / "etcd.json").read_text())["pid"])
        except FileNotFoundError:
            return None

    def log(self) -> str:
        """The end of its agent's log, for a failed assertion's message."""
        try:
            text = (self.home / "log" / "agent.log").read_text(errors="replace")
        except OSError:
            return f"{self.name} has no log"
        return f"--- log of {self.name}\n{text[-4000:]}"

    def send_at_most(self, rate: int) -> None:
        """As ``node limit --upload`` does, in bytes a second (0 is no limit), and at once: a get may end before a command
        has begun."""
        AgentClient(Home.resolve(self.home)).limits(rate, None)

    # What it sees

    def holders(self, name: str) -> dict[str, dict[str, Any]]:
        """Who holds an object, by node, as ``info`` says; empty when there is no such object, or nobody any more."""
        done = self.run("info", name, "--json")
        assert done.status in {0, 3} or done.error["type"] == "HolderGone", done
        return {r["node"]: r for r in done.json["replicas"]} if done.status == 0 else {}

    def names(self) -> list[str]:
        """The names of all objects, as ``list`` says."""
        return [o["name"] for o in self.ok("list")["objects"]]


class Etcd:
    """An etcd that nobody but the test looks after; its port stays the same over restarts."""

    def __init__(self, cluster: Cluster, name: str, binary: str = "", *options: str) -> None:
        self.directory = cluster.root / name
        self.directory.mkdir()
        self._command = [binary or find_etcd(), *options]
        self.data = self.directory / "data"
        self.environment = cluster.environment
        self.endpoint, self._peer = f"127.0.0.1:{reserved_port()}", f"http://127.0.0.1:{reserved_port()}"
        self.url = f"etcd://{self.endpoint}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Etcd:
        """Start it, and wait until it answers."""
        client = f"http://{self.endpoint}"
        options = {
            "data-dir": self.data,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": self._peer,
            "initial-advertise-peer-urls": self._peer,
            "initial-cluster": f"default={self._peer}",
            "unsafe-no-fsync": "true",
        }
        command = [*self._command, *(f"--{key}={value}" for key, value in options.items())]
        with (self.directory / "log").open("ab") as log:
            process = self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        eventually(lambda: process.poll() is not None or answers(self.endpoint), "etcd answers")
        assert process.poll() is None, (self.directory / "log").read_text()[-2000:]
        return self

    def kill(self) -> None:
        """SIGKILL; harmless when it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def wipe(self) -> None:
        """Lose all that it knew."""
        shutil.rmtree(self.data)


class Cluster:
    """Agents that share a directory and, mostly, a metadata server."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.work.mkdir(parents=True)
        self.metadata: str | None = None
        self.mark = uuid.uuid4().hex
        self.running: list[Running] = []
        self.etcds: list[Etcd] = []
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if key in os.environ}
        self.environment = {
            **kept,
            "HOME": str(root),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_STATE_HOME": str(root / "state"),
            "XDG_RUNTIME_DIR": str(root / "runtime"),
            "PYTHONPATH": str(ROOT),
            # A command that started an agent ends before the agent does: that is what it is for.
            "PYTHONWARNINGS": "error,ignore:subprocess:ResourceWarning",
            "MOONCAKE_LEASE_TTL": str(LEASE_TTL),
            MARK: self.mark,
        }

    def etcd(self, name: str = "etcd", binary: str = "", *options: str) -> Etcd:
        """Start an etcd, of a certain binary and with ``options`` where they are given.

        Agents made from now on use it unless told otherwise; without one, each starts its own.
        """
        attempts = 3  # somebody may be quicker to take a port that was free
        while True:
            etcd = Etcd(self, name, binary, *options)
            try:
                etcd.start()
                break
            except AssertionError:
                attempts -= 1
                if not attempts:
                    raise
                shutil.rmtree(etcd.directory)
        self.etcds.append(etcd)
        self.metadata = etcd.url
        return etcd

    def agent(self, name: str, *, metadata: str | None = "", start: bool = True, **environment: str) -> Agent:
        """A new home and, unless told otherwise, a living agent in it. ``metadata`` "" means the cluster's."""
        agent = Agent(self, name, metadata=self.metadata if metadata == "" else metadata, environment=environment)
        return agent.start() if start else agent

    def agents(self, *names: str, **environment: str) -> list[Agent]:
        """Several new homes with living agents, which start side by side."""
        made = [self.agent(name, start=False, **environment) for name in names]
        starting = [agent.begin("node", "start", "--json") for agent in made]
        for agent, command in zip(made, starting, strict=True):
            done = command.wait()
            assert done.status == 0, f"{done}\n{agent.log()}"
        return made

    def path(self, name: str) -> Path:
        """A path for a test's data."""
        return self.work / name

    def processes(self) -> list[int]:
        """Every living process that this cluster started, or that one of them started.

        An agent's etcd gets nothing of its environment, but names a directory of the cluster's.
        """
        needle, root = f"{MARK}={self.mark}".encode(), os.fsencode(self.root)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    marked = needle in (entry / "environ").read_bytes().split(b"\0")
                    program, _, words = (entry / "cmdline").read_bytes().partition(b"\0")
                    if marked or (os.path.basename(program) == b"etcd" and root in words):
                        found.append(int(entry.name))
        return found

    def defects(self) -> list[str]:
        """What agents logged that is a defect of ours, whatever a test did to them."""
        signs = ("Traceback", "never retrieved", "never awaited", "destroyed but", "Warning: ")
        found = []
        for log in sorted(self.root.rglob("agent.log")):
            lines = log.read_text(errors="replace").splitlines()
            for number, line in enumerate(lines):
                if any(sign in line for sign in signs):
                    found.append("\n".join([str(log), *lines[max(0, number - 2) : number + 30]]))
        return found

    def close(self) -> None:
        """End every process of this cluster, at once."""

        def none_lives() -> bool:
            living = [pid for pid in self.processes() if is_alive(pid)]
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not living

        eventually(none_lives, "its processes are dead")
        for command in self.running:
            command.close()
        for etcd in self.etcds:
            etcd.kill()


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}


def answers(endpoint: str) -> bool:
    """Whether an etcd at ``host:port`` says that it is healthy."""
    try:
        with urllib.request.urlopen(f"http://{endpoint}/health", timeout=2) as reply:
            return bool(json.load(reply)["health"] == "true")
    except OSError:
        return False


def journalled(dest: Path) -> int:
    """How many chunks the get that writes ``dest`` has verified: one line of JSON, then four bytes a chunk."""
    try:
        data = (dest.with_name(work_name(dest.name)) / "journal").read_bytes()
    except FileNotFoundError:
        return 0
    return len(data.partition(b"\n")[2]) // 4


def halted_get(getter: Agent, sources: Sequence[Agent], name: str, dest: Path, *options: object) -> Running:
    """Begin a get over TCP, and when it has some chunks let its sources send next to nothing, until ``resume``.

    The get that is returned has some chunks, lacks most, and would need hours more. Of objects of less than 90 MB it may
    get all before it is halted.
    """
    for source in sources:
        source.send_at_most(HALTING_RATE)
    running = getter.begin("get", name, dest, "--transport", "tcp", *options, "--json")
    eventually(lambda: journalled(dest) >= 4 or running.ended, "the get has some chunks")
    for source in sources:
        source.send_at_most(HALTED_RATE)
    assert not running.ended, f"a larger object is needed: {running.wait()}"
    assert (dest.with_name(work_name(dest.name)) / "part").exists()
    assert not dest.exists()
    return running


def resume(source: Agent) -> None:
    """Let a source of ``halted_get`` send again."""
    source.send_at_most(0)


def make_file(path: Path, size: int, seed: int = 0) -> Path:
    """A file of pseudo-random bytes, the same for the same seed. Returns ``path``."""
    generator = random.Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(generator.randbytes(min(1 << 20, size - start)))
    return path


def flip(path: Path, offsets: Iterable[int]) -> None:
    """Flip bytes of a file on a tmpfs through a mapping: no time changes, nothing but the content tells."""
    before = path.stat()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        for offset in offsets:
            mapped[offset] ^= 0xFF
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory (or a file, as ""): content by relative path, None for a directory."""
    if root.is_file():
        return {"": root.read_bytes()}
    return {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in sorted(root.rglob("*"))}


def same(one: Path, other: Path) -> bool:
    """Whether two files or directories are equal, byte for byte, of whatever size."""
    filecmp.clear_cache()  # it goes by times, and the tests play with those
    if one.is_dir() != other.is_dir():
        return False
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    names = sorted(p.relative_to(one) for p in one.rglob("*"))
    if names != sorted(p.relative_to(other) for p in other.rglob("*")):
        return False
    return all(
        (one / n).is_dir() == (other / n).is_dir()
        and ((one / n).is_dir() or filecmp.cmp(one / n, other / n, shallow=False))
        for n in names
    )


def leftovers(dest: Path) -> list[str]:
    """What stands beside ``dest`` under names derived from it: a partial form, a journal, something set aside."""
    return sorted(p.name for p in dest.parent.glob(f"*{dest.name}*") if p != dest)
