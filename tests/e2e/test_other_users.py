"""Other users of the host: what the default agent has is not for them, though it listens on loopback."""

from __future__ import annotations

import asyncio
import http.client
import os
import pickle
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.errors import RangeRefused
from engine.net import addresses
from engine.net.handshake_client import fetch_descriptor
from engine.protocol.local_socket import short_path
from engine.serving.segment_server import SegmentServer
from engine.transports.base import PeerAddress
from p2pstore.cluster.peer_client import Availability, PeerClient
from p2pstore.cluster.records import peer_address
from p2pstore.metadata.urls import parse_url
from tests.e2e.cluster import Agent, Cluster, make_file

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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
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
def private(alone: Cluster) -> tuple[Agent, Path]:
    """The default agent, which serves a file of mode 0600 in a directory of mode 0700."""
    agent = alone.agent("private", metadata=None)
    directory = alone.path("mine")
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
    assert not fetch_descriptor("127.0.0.1", ports["rpc"], timeout=20).buffers
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

    # The tests' directories are closed to others anyway; a home may lie where everybody can look.
    for parent in [*agent.home.parents]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    found = as_another_user(attempt)
    assert set(found.values()) == {"PermissionError"}, found


def test_agents_of_one_user_understand_each_other(private: tuple[Agent, Path], alone: Cluster) -> None:
    """The commands of the README's "One machine"."""
    agent, file = private
    metadata = agent.status()["metadata"]
    assert metadata.startswith("etcd+unix:///")
    second = alone.agent("second", metadata=metadata)
    for transport in ("tcp", "local"):
        copy = alone.path(f"copy-{transport}")
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
