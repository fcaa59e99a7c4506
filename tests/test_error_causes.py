"""Each error with each of its causes, read as a user reads it: the sentence is whole, and what it tells to run, runs.

Where a cause can be made at once it is made for real, and must lead to that class.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import errnos
from engine.etcd.client import EtcdClient, EtcdFault
from engine.etcd.credentials import EtcdCredentials
from engine.etcd.faults import classify, tidy
from engine.net import sockets
from mooncake_cli.output import Output
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.errors import MooncakeError, StorageError, from_wire, to_wire
from p2pstore.objects.names import check_object_name
from p2pstore.objects.selection import Selection
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from p2pstore.settings.settings import Settings
from scripts.cli_model import shared_options, walk
from scripts.error_causes import CAUSES, Cause
from scripts.generate_docs import own_errors
from tests.cli.printed_commands import parse, printed_commands
from tests.ports import closed_port

OWN = own_errors()
BY_NAME = {cls.__name__: cls for cls in OWN}

OPTIONS = {o for c in walk() for option in c.options for o in option.spellings} | {
    o for option in shared_options() for o in option.spellings
}
OTHERS_OPTIONS = {"--quota-backend-bytes"}
"""Of other programs."""

PLACEHOLDERS = re.compile(r"\b(NAME|PATH|PEER|DIGEST)\b")
"""What stands for something that the program knew, and did not say."""


def test_every_class_has_a_cause() -> None:
    assert {cause.error for cause in CAUSES} == set(BY_NAME)


def shown(error: MooncakeError, capsys: pytest.CaptureFixture[str], home: str | None = None) -> str:
    Output(home=home).error(error)
    return capsys.readouterr().err


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: f"{cause.error}: {cause.what}")
@pytest.mark.parametrize("home", [None, "/srv/my home"], ids=["", "--home"])
def test_it_reads_well_and_what_it_says_can_be_run(
    cause: Cause, home: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    error = BY_NAME[cause.error](**cause.fields)
    again = from_wire(to_wire(error))
    assert (type(again), str(again), again.hint) == (type(error), str(error), error.hint)
    text = shown(error, capsys, home)
    lines = text.splitlines()
    assert lines[0] == f"error: {error}"
    assert not re.search(r"[{}]", text.replace(str(error), "")), text
    hint = "\n".join(lines[1:]).removeprefix("hint: ")
    assert not PLACEHOLDERS.search(hint), hint
    for command in printed_commands(hint):
        assert parse(command)
        assert (home is None) or command.startswith('mooncake --home "/srv/my home" ') or "--help" in command
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", hint):
        assert option in OPTIONS | OTHERS_OPTIONS, option
    if "bug" in hint:
        assert error.exit_code == 1, "this is a bug only where it is one"


@pytest.mark.parametrize("name", ["-x", "--help", "a/-b", "-"])
def test_names_that_look_like_options(name: str) -> None:
    for cause in CAUSES:
        if "name" in cause.fields and cause.error != "BadName":
            error = BY_NAME[cause.error](**{**cause.fields, "name": name})
            for command in printed_commands(error.hint):
                parse(command)
                assert name in re.split(r"[ =]", command) or command in {"mooncake list", "mooncake doctor"}


# For real.


def raised(work: Callable[[], object]) -> MooncakeError:
    with pytest.raises(MooncakeError) as caught:
        work()
    return caught.value


def _taken_port(_: Path) -> MooncakeError:
    with sockets.listen("127.0.0.1", 0) as listener:
        return raised(lambda: sockets.listen("127.0.0.1", listener.getsockname()[1]))


def _pipe_inside(tmp: Path) -> MooncakeError:
    os.mkfifo(tmp / "a pipe")
    return raised(lambda: scan(tmp))


def _changed(tmp: Path) -> MooncakeError:
    (tmp / "w").write_bytes(b"x")
    tree = scan(tmp)
    (tmp / "w").write_bytes(b"xy")
    return raised(lambda: hash_tree(tree, hash_name="xxh3_128"))


def _of_etcd(code: str, words: str) -> MooncakeError:
    client = EtcdClient(["127.0.0.1:1"], EtcdCredentials(), tls=False, url="etcd://127.0.0.1:1")
    fault = EtcdFault(classify(code, words), tidy(words), answered=words.startswith("etcdserver: "))
    return raised(lambda: client.give_up(fault))


def _no_etcd(_: Path) -> MooncakeError:
    from p2pstore.metadata.etcd import EtcdStore

    async def ask() -> None:
        store = EtcdStore([f"127.0.0.1:{closed_port()}"])
        try:
            await store.get("k")
        finally:
            await store.close()

    return raised(lambda: asyncio.run(ask()))


def _agent_that_goes_away(tmp: Path) -> MooncakeError:
    home = Home.resolve(tmp / "home")
    home.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.socket))
        listener.listen()

        def answer_half() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")

        thread = threading.Thread(target=answer_half)
        thread.start()
        try:
            return raised(lambda: list(AgentClient(home).verify("n")))
        finally:
            thread.join(60)


REAL: dict[str, Callable[[Path], MooncakeError]] = {
    "PortTaken": _taken_port,
    "NoSuchAddress": lambda _: raised(lambda: sockets.listen("203.0.113.1", 0)),
    "BadName": lambda _: raised(lambda: check_object_name("a b")),
    "BadSource": lambda _: raised(lambda: scan(Path("/dev/null"))),
    "BadSource: something in PATH cannot be registered": _pipe_inside,
    "UsageError": lambda _: raised(lambda: Selection(exclude=["[z-a]"])),
    "BadConfig": lambda tmp: raised(lambda: Settings.load(environ={"MOONCAKE_LEASE_TTL": "x"}, cwd=tmp)),
    "SourceChanged": _changed,
    "PathNotFound": lambda tmp: raised(lambda: scan(tmp / "nothing")),
    "AgentNotRunning": lambda tmp: raised(AgentClient(Home.resolve(tmp / "home")).status),
    "AgentGone": _agent_that_goes_away,
    "MetadataUnavailable": _no_etcd,
    "MetadataFull": lambda _: _of_etcd("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded"),
    "MetadataUnhealthy": lambda _: _of_etcd("UNAVAILABLE", "etcdserver: no leader"),
    "MetadataRefused": lambda _: _of_etcd("PERMISSION_DENIED", "etcdserver: permission denied"),
}


@pytest.mark.parametrize("name", REAL)
def test_the_cause_leads_there(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = REAL[name](tmp_path)
    assert type(error).__name__ == name.partition(":")[0]
    text = shown(error, capsys)
    assert "Traceback" not in text
    for command in printed_commands(text):
        assert parse(command)


@pytest.mark.parametrize("code", errnos.PATHS, ids=os.strerror)
def test_every_error_of_the_system_has_advice_of_its_own(code: int) -> None:
    """Whoever says it: in lower case, or with words of ours before it."""
    for detail in (os.strerror(code), os.strerror(code).lower(), f"it cannot be locked: {os.strerror(code).lower()}"):
        assert StorageError(path="/x", detail=detail).hint == errnos.PATHS[code]
    assert "free space" not in errnos.PATHS[code] or code == errnos.errno.ENOSPC


def test_advice_for_what_nobody_foresaw() -> None:
    assert StorageError(path="/x", detail="level 3 halted").hint == errnos.ELSE
    assert "free space" in StorageError(path="/x", detail="no space left: 5 bytes are needed, 3 are free").hint
    assert "hangs" in StorageError(path="/x", detail="a write has not ended for 30 s").hint


def _too_many_open(tmp: Path) -> MooncakeError:
    (tmp / "w").write_bytes(b"x")
    tree = scan(tmp)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        return raised(lambda: hash_tree(tree, hash_name="xxh3_128", threads=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _in_a_circle(tmp: Path) -> MooncakeError:
    (tmp / "loop").symlink_to("loop")
    return raised(lambda: scan(tmp / "loop" / "x"))


SYSTEM: dict[str, tuple[Callable[[Path], MooncakeError], str]] = {
    "EMFILE": (_too_many_open, "limit of open files"),
    "ENAMETOOLONG": (lambda tmp: raised(lambda: scan(tmp / ("x" * 300))), "shorter path"),
    "ELOOP": (_in_a_circle, "circle"),
}


@pytest.mark.parametrize("name", SYSTEM)
def test_the_system_refuses(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, words = SYSTEM[name]
    error = make(tmp_path)
    assert type(error) is StorageError
    text = shown(error, capsys)
    assert words in text
    assert "free space" not in text
