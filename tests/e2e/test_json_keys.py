"""What commands print with ``--json`` is what docs/json.md says, key by key, and of the types that stand there."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest

from scripts.json_keys.documents import BACKGROUND, DOCUMENTS, SEVERAL, Document
from scripts.json_keys.form import faults, paths, seen, shape
from scripts.json_keys.objects import ERROR
from tests.cli.store_processes import Pool
from tests.e2e.cluster import PATIENCE, Agent, Cluster, Running, eventually
from tests.p2pstore.hub.stand_in import StandIn

pytestmark = pytest.mark.timeout(1800)

NOT_RUN = {"bench gpu": "it needs a GPU; tests/gpu runs it"}

SELDOM = "malformed"
"""A key that is missing unless somebody has written nonsense to etcd."""


class Said:
    """What commands printed, by the document that it should be."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], list[Any]] = {}
        self.errors: list[Any] = []

    def ask(self, agent: Agent, *words: object, when: str = "", status: int = 0) -> Any:
        """Run a command, and keep the document that it prints; its name is what the words begin with."""
        done = agent.run(*words, "--json")
        assert done.status == status, f"{done}\n{agent.log()}"
        found = [json.loads(line) for line in done.out.splitlines()]
        self.note(_command(words), *found, when=when)
        if status:
            self.errors.append(json.loads(done.err.splitlines()[-1]))
        return found[-1] if found else None

    def note(self, command: str, *documents: Any, when: str = "") -> None:
        self.documents.setdefault((command, when), []).extend(documents)

    def of(self, document: Document) -> list[Any]:
        """What commands printed of which this is told; each of them did."""
        found = []
        for command in document.commands:
            said = self.documents.get((command, document.when))
            assert said, f"{command} was not run: {document.when}"
            found += said
        return found


def _from(stream: BinaryIO, agent: Agent, *words: str) -> bytes:
    """What a command prints that reads a stream."""
    command = [sys.executable, "-m", "mooncake_cli", "--home", str(agent.home), *words, "--json"]
    environment = agent.environment
    return subprocess.run(command, env=environment, stdin=stream, capture_output=True, timeout=100, check=True).stdout


COMMANDS = {command for document in DOCUMENTS for command in document.commands}


def _command(words: tuple[object, ...]) -> str:
    two = " ".join(map(str, words[:2]))
    return two if two in COMMANDS else str(words[0])


@contextlib.contextmanager
def running(agent: Agent, *words: object) -> Iterator[Running]:
    """A command that goes on until it is ended."""
    process = agent.begin(*words, "--json")
    try:
        yield process
    finally:
        process.send(signal.SIGINT)
        process.wait()


def next_line(running: Running) -> Any:
    """What it says next."""
    assert running.process.stdout is not None
    assert select.select([running.process.stdout], [], [], PATIENCE)[0], f"{running.arguments} says nothing"
    return json.loads(running.process.stdout.readline())


@pytest.fixture(scope="module")
def said(shared: Cluster, pair: tuple[Agent, Agent]) -> Said:
    found = Said()
    _objects(found, shared, *pair)
    _versions(found, shared, *pair)
    _copies(found, shared, *pair)
    _machine(found, shared, *pair)
    _pool(found, shared, pair[0])
    _benches(found, pair[0])
    return found


def _objects(said: Said, cluster: Cluster, source: Agent, getter: Agent) -> None:
    tree, file, into = cluster.path("tree"), cluster.path("file"), cluster.path("into")
    for directory in (tree, into):
        directory.mkdir()
    (tree / "a").write_bytes(os.urandom(3_000_000))
    (tree / "b").write_bytes(os.urandom(100))
    file.write_text(os.urandom(1000).hex())
    said.ask(source, "register", tree, "--name", "m/tree", "--tag", "v1")
    said.ask(source, "register", tree, file, when="several paths")
    bad = cluster.path("bad")
    bad.mkdir()
    os.mkfifo(bad / "pipe")
    said.ask(source, "register", tree, bad, when="several paths", status=10)
    said.ask(getter, "get", "m/tree", into / "dry", "--dry-run")
    said.ask(getter, "get", "m/tree", into / "tree", "--transport", "tcp")
    said.ask(getter, "get", "m/tree/b", into / "b")
    said.ask(getter, "get", "m/", "file", f"{into}/", when=SEVERAL)
    said.ask(getter, "get", "none", "file", f"{into}/", when=SEVERAL, status=10)
    job = said.ask(getter, "get", "file", into / "job", BACKGROUND, when=f"get {BACKGROUND}")["id"]
    said.ask(getter, "jobs", "wait", job)
    failing = "get", "file", "m/tree", f"{cluster.path('nowhere')}/", BACKGROUND, "--retries", 1
    said.ask(getter, *failing, when=f"{SEVERAL}, {BACKGROUND}")  # without --retries they would be no jobs
    waits = said.ask(getter, "get", "none", into / "none", BACKGROUND, "--wait", when=f"get {BACKGROUND}")["id"]
    eventually(lambda: getter.ok("jobs", "show", waits)["progress"], "the job says what it does")
    failed = [job + 1, job + 2]
    eventually(lambda: all(getter.ok("jobs", "show", one)["error"] for one in failed), "the jobs have failed")
    said.ask(getter, "node", "status")
    said.ask(getter, "jobs", "list")
    for one in (job, waits, *failed):
        said.ask(getter, "jobs", "show", one, when=f"get {BACKGROUND}")
    said.ask(getter, "jobs", "cancel", waits, when=f"get {BACKGROUND}")
    said.ask(getter, "list")
    said.ask(getter, "info", "m/tree")
    said.ask(getter, "info", "m/", "file", when=SEVERAL)
    said.ask(getter, "info", "file", "none", when=SEVERAL, status=10)
    said.ask(getter, "verify", "m/tree")
    said.ask(getter, "verify", "m/", "file", when=SEVERAL)
    said.ask(getter, "verify", "file", "none", when=SEVERAL, status=3)
    with file.open("rb") as stream:
        said.note("register", json.loads(_from(stream, source, "register", "-", "--name", "piped")))
    hub = StandIn()
    hub.repos["org/model"] = {"config.json": b"{}"}
    try:
        reader = cluster.agent("reader", MOONCAKE_HF_UPSTREAM=hub.url)
        said.ask(reader, "register", "hf://org/model")
        said.ask(reader, "register", f"file://{file}", "--name", "from-origin")
        reader.stop()
    finally:
        hub.close()
    done = getter.run("get", "file", "-", "--json")
    said.note("get", json.loads(done.err.splitlines()[-1]))


def _versions(said: Said, cluster: Cluster, source: Agent, getter: Agent) -> None:
    with running(source, "watch", "m/tree", "--initial") as watch:
        said.note("watch", next_line(watch), when="a line each")
    (cluster.path("tree") / "b").unlink()
    (cluster.path("tree") / "b").write_bytes(os.urandom(100))
    source.ok("register", cluster.path("tree"), "--name", "m/tree", "--force")
    said.ask(getter, "history", "m/tree")
    said.ask(getter, "list")
    said.ask(getter, "info", "m/tree")
    said.ask(getter, "info", "m/tree:v1")
    said.ask(getter, "node", "status")
    said.ask(source, "tag", "m/tree", "v2", when="NEW")
    said.ask(source, "tag", "m/tree", when="no NEW")
    said.ask(source, "tag", "m/tree:v2", "--remove", when="--remove")
    said.ask(getter, "get", "m/tree", cluster.path("into") / "tree", "--update")


def _copies(said: Said, cluster: Cluster, source: Agent, getter: Agent) -> None:
    said.ask(source, "cache", "list")
    said.ask(getter, "cache", "du")
    said.ask(getter, "cache", "pin", "m/tree")
    said.ask(getter, "cache", "prune", "m/tree", "--dry-run")
    said.ask(getter, "cache", "unpin", "m/tree")
    said.ask(getter, "cache", "prune", "--yes")
    limited = cluster.agent("limited", start=False, MOONCAKE_CACHE_QUOTA="1GiB")
    said.ask(limited, "node", "start", "--metrics", "127.0.0.1:0", "--hf-endpoint", "127.0.0.1:0")
    said.ask(limited, "get", "m/tree", cluster.path("limited"))
    said.ask(limited, "cache", "list")
    said.ask(limited, "cache", "du")
    said.ask(limited, "unregister", "m/tree", "--delete")
    said.ask(source, "unregister", "piped", "m/tree", when=SEVERAL)
    said.ask(source, "unregister", "file", "none", when=SEVERAL, status=10)


def _machine(said: Said, cluster: Cluster, source: Agent, getter: Agent) -> None:
    source.ok("register", cluster.path("file"), "--name", "again")
    said.ask(source, "node", "limit", "--upload", "1GB")
    said.ask(source, "node", "logs")
    with running(source, "node", "logs", "--follow") as logs:
        next_line(logs)
        with (source.home / "log" / "agent.log").open("a") as log:
            log.write("it grows\n")
        said.note("node logs", next_line(logs), when="--follow, a line each")
    said.ask(getter, "top", "--interval", "0.1", "--count", "1", when="a line each")
    said.ask(source, "config", "show")
    said.ask(source, "config", "show", "--origin", when="--origin")
    done = source.run("doctor", "--json")  # of this machine there may be something to say
    said.note("doctor", json.loads(done.out))
    said.ask(source, "topology")
    said.ask(source, "etcd", "inspect")
    said.ask(source, "etcd", "gc")
    with running(source, "metadata", "serve", "--listen", "127.0.0.1:0") as server:
        said.note("metadata serve", next_line(server))
    proxy = ("--prefill", "127.0.0.1:1", "--decode", "127.0.0.1:1", "--host", "127.0.0.1", "--port", "0")
    with running(source, "proxy", "--model", "m", *proxy) as server:
        said.note("proxy", next_line(server))
    stopped = cluster.agent("stopped")
    for _ in range(2):
        said.ask(stopped, "node", "stop")


def _pool(said: Said, cluster: Cluster, agent: Agent) -> None:
    value = cluster.path("file")
    pool = Pool(agent.environment, cluster.root)
    try:
        said.note("store master", pool.master.told)
        said.note("store give", pool.giver.told)
        master = ("--master", pool.master.told["address"])
        admin = ("--admin", pool.master.told["metrics"])
        said.ask(agent, "store", "put", "k", value, *master)
        said.ask(agent, "store", "get", "k", cluster.path("value"), *master)
        said.ask(agent, "store", "status", *admin)
        said.ask(agent, "store", "list", *admin)
        said.ask(agent, "store", "info", "k", *admin)
        said.ask(agent, "store", "why", *admin)
        said.ask(agent, "store", "why", "nothing", *admin)
        said.ask(agent, "store", "top", "--interval", "0.1", "--count", "1", *admin, when="a line each")
        said.ask(agent, "store", "remove", "k", "--force", *admin)
    finally:
        pool.close()
    model = cluster.path("model")
    model.mkdir()
    (model / "config.json").write_text('{"torch_dtype": "float32"}')
    said.ask(agent, "serve", "init", "vllm", model, "--dir", cluster.path("engine"))


def _benches(said: Said, agent: Agent) -> None:
    quick = ("--duration", "0.1", "--rounds", "1")
    said.ask(agent, "bench", "transfer", *quick, "--warm-up", "0.05", "--block-size", "64KiB", "--threads", "1")
    said.ask(agent, "bench", "store", *quick, "--size", "64KiB", "--batch", "1", "--operation", "get,exist")
    said.ask(agent, "bench", "broadcast", "--receivers", "1", "--size", "4MiB")
    said.ask(agent, "bench", "delta", "--receivers", "1", "--size", "16MiB")
    said.ask(agent, "bench", "simulate", "--receivers", "2", "--size", "8MiB")
    said.ask(agent, "bench", "serve", "--generate", "conversation", "--requests", "20", "--policy", "round-robin")


def _id(document: Document) -> str:
    return ", ".join(document.commands) + (f": {document.when}" if document.when else "")


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_it_prints_these_keys_and_no_others(said: Said, document: Document) -> None:
    if document.commands[0] in NOT_RUN:
        pytest.skip(f"NOT RUN: {NOT_RUN[document.commands[0]]}")
    for each in said.of(document):
        assert list(faults(each, document.shape)) == [], each


def test_what_may_be_missing_is_there_sometimes(said: Said) -> None:
    for document in DOCUMENTS:
        optional = {path for path, key in paths(document.shape) if key.optional and not path.endswith(SELDOM)}
        assert not optional or optional <= seen(said.of(document), document.shape), _id(document)


def test_so_does_a_failure(said: Said, source: Agent) -> None:
    for words in (("info", "none"), ("get", "none"), ("nonsense",)):
        done = source.run(*words, "--json")
        assert done.status
        said.errors.append(json.loads(done.err.splitlines()[-1]))
    for error in said.errors:
        assert list(faults(error, shape("error object why", error=ERROR))) == []
