"""Other users of the host: what the default agent has is not for them, though it listens on loopback."""

from __future__ import annotations

import asyncio
import grp
import http.client
import os
import pickle
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import mooncake_cli
from engine.errors import RangeRefused
from engine.net import addresses
from engine.net.handshake_client import fetch_descriptor
from engine.protocol.local_socket import short_path
from engine.serving.segment_server import SegmentServer
from engine.transports.base import PeerAddress
from p2pstore.cluster.news import Availability
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import peer_address
from p2pstore.metadata.urls import parse_url
from tests.e2e.cluster import COMMAND_TIMEOUT, Agent, Cluster, Done, make_file
from tests.e2e.conftest import cluster_in

NOBODY = 65534
MIB = 1 << 20

T = TypeVar("T")


def as_another_user(work: Callable[[], T]) -> T:
    """What ``work`` returns when a process of another user does it."""
    if os.geteuid():
        pytest.skip("NOT TRIED AS ANOTHER USER: only root can become one")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, pickle.dumps(work()))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as stream:
        answer = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    result: T = pickle.loads(answer)
    return result


def ports_of(agent: Agent) -> list[int]:
    """Where an agent and its etcd listen: any user can read it in /proc/net/tcp."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[9]: int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A"}
    found = []
    for pid in filter(None, (agent.pid, agent.etcd_pid)):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            inode = os.readlink(entry).removeprefix("socket:[").rstrip("]")
            if inode in listening:
                found.append(listening[inode])
    return found


def asked(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def own_secret_of(agent: Agent) -> bytes:
    file = Path(agent.environment["XDG_STATE_HOME"], "mooncake", "secret")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file.read_bytes().strip()


async def told(agent: Agent, name: str) -> tuple[PeerAddress, Availability]:
    """What a node that knows the secret is told of an object."""
    client = PeerClient(own_secret_of(agent))
    try:
        control = agent.status()["control"]
        record = await client.node(control)
        manifest = await client.manifest(control, (await client.name(control, name)).manifest)
        news = client.availability(control, manifest)
        found = await news.__anext__()
        await news.aclose()  # type: ignore[attr-defined]
    finally:
        await client.close()
    assert isinstance(found, Availability)
    return peer_address(record), found


@pytest.fixture
def reachable() -> Iterator[Cluster]:
    """A cluster without a metadata server where everybody can look: pytest's own directories are closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="mooncake-users-"))
    try:
        directory.chmod(0o755)
        with cluster_in(directory / "cluster") as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def private(reachable: Cluster) -> tuple[Agent, Path]:
    """The default agent, which serves a file of mode 0600 in a directory of mode 0700."""
    agent = reachable.agent("private", metadata=None)
    directory = reachable.path("mine")
    directory.mkdir(mode=0o700)
    file = make_file(directory / "key", 3 * MIB)
    file.chmod(0o600)
    agent.ok("register", file, "--name", "private")
    return agent, file


def test_whoever_lacks_the_secret_learns_nothing_and_reads_nothing(private: tuple[Agent, Path]) -> None:
    agent, _ = private
    status = agent.status()
    ports = {key: addresses.parse(status[key])[1] for key in ("control", "rpc", "data")}
    assert sorted(ports_of(agent)) == sorted(ports.values()), "etcd has no port"
    for path in ("/v1/peer", "/v1/key", "/v1/names?name=private", "/v1/paths?control=127.0.0.1:1"):
        code, headers, body = asked(ports["control"], path)
        assert code == 403
        assert "Server" not in headers
        assert b"private" not in body
    assert not fetch_descriptor("127.0.0.1", ports["rpc"], timeout=60).buffers
    peer, found = asyncio.run(told(agent, "private"))
    with SegmentServer() as engine:
        into = bytearray(MIB)
        with pytest.raises(RangeRefused):  # though the stranger has found out where it lies
            engine.read(peer, found.address, memoryview(into))
        assert not any(into)


def test_another_user_reaches_no_socket_and_no_file(private: tuple[Agent, Path]) -> None:
    agent, file = private
    etcd = Path(parse_url(agent.status()["metadata"]).parts[0])
    own = Path(agent.environment["XDG_STATE_HOME"], "mooncake", "secret")
    sockets = [path for path in agent.home.rglob("*") if path.is_socket()] + [etcd]
    assert len(sockets) >= 3

    def attempt() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sockets:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                try:
                    with short_path(path) as name:
                        sock.connect(name)
                    found[str(path)] = "connected"
                except OSError as error:
                    found[str(path)] = type(error).__name__
        for path in (file, own, agent.home / "log" / "agent.log", agent.home / "state" / "catalog.db"):
            try:
                found[str(path)] = path.read_bytes()[:10]
            except OSError as error:
                found[str(path)] = type(error).__name__
        return found

    found = as_another_user(attempt)
    assert set(found.values()) == {"PermissionError"}, found


def test_agents_of_one_user_understand_each_other(private: tuple[Agent, Path], reachable: Cluster) -> None:
    """The commands of the README's "One machine"."""
    agent, file = private
    metadata = agent.status()["metadata"]
    assert metadata.startswith("etcd+unix:///")
    second = reachable.agent("second", metadata=metadata)
    for transport in ("tcp", "local"):
        copy = reachable.path(f"copy-{transport}")
        second.ok("get", "private", copy, "--transport", transport, "--no-seed")
        assert copy.read_bytes() == file.read_bytes()
    assert second.names() == ["private"]


def test_another_user_with_the_same_etcd_is_refused(cluster: Cluster) -> None:
    """As is each user without a secret that both were given; whoever says so serves everybody."""
    file = make_file(cluster.path("file"), MIB)
    mine = cluster.agent("mine")
    mine.ok("register", file, "--name", "mine")
    theirs = cluster.agent("theirs", XDG_STATE_HOME=str(cluster.path("another user")))
    error = theirs.fails(7, "get", "mine", cluster.path("copy"))
    assert error["type"] == "SecretRefused"
    mine.stop()
    mine.start("--insecure")
    theirs.ok("get", "mine", cluster.path("copy"))
    assert cluster.path("copy").read_bytes() == file.read_bytes()


def interpreter() -> str:
    """A Python of this version that other users can run, and with it what is tested here."""
    candidates = (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")

    def usable() -> str:
        if not os.access(mooncake_cli.__file__, os.R_OK):
            return ""
        return next((path for path in candidates if os.access(path, os.X_OK)), "")

    found = as_another_user(usable)
    if not found:
        pytest.skip("NOT TRIED WITH A GROUP: other users cannot run what is tested here")
    return found


def as_user(uid: int, *arguments: object, environment: dict[str, str], group: int | None = None) -> Done:
    """Run a command as another user, who may be in a group."""
    command = [str(argument) for argument in arguments]
    done = subprocess.run(
        [environment["PYTHON"], "-m", "mooncake_cli", *command],
        env=environment,
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=[] if group is None else [group],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT,
        check=False,
    )
    return Done(command, done.returncode, done.stdout, done.stderr)


def test_a_group_uses_one_agent(reachable: Cluster) -> None:
    """One agent for the users of a host: a user of its own has it, and a group may use it."""
    python = interpreter()
    owner, member, stranger, group = 54321, 54322, 54323, grp.getgrnam("users")
    home, file = reachable.path("srv"), make_file(reachable.path("file"), MIB)
    home.mkdir()
    os.chown(home, owner, owner)
    file.chmod(0o644)
    environment = {**reachable.environment, "MOONCAKE_HOME": str(home), "MOONCAKE_GROUP": group.gr_name}
    environment |= {"XDG_STATE_HOME": str(home / "xdg"), "PYTHON": python, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        started = as_user(owner, "node", "start", environment=environment, group=group.gr_gid)
        assert started.status == 0, started
        registered = as_user(member, "register", file, "--name", "shared", environment=environment, group=group.gr_gid)
        assert registered.status == 0, registered
        assert as_user(owner, "list", "-q", environment=environment).out.split() == ["shared"]
        refused = as_user(stranger, "list", "-q", environment=environment)
        assert refused.status == 8, refused
        assert not refused.out
    finally:
        as_user(owner, "node", "stop", environment=environment)
