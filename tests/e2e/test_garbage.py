"""What strangers send to every port, and an agent that does not answer: nobody else notices."""

from __future__ import annotations

import random
import signal
import socket

import pytest

from tests.e2e.cluster import Cluster, eventually, make_file

MIB = 1 << 20


def garbage() -> list[bytes]:
    chance = random.Random(2)
    return [
        b"",
        b"\0" * 100,
        b"\xff" * 64,
        b"A" * 300_000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /v1/" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/get HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
        b"POST /v1/register HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n[[[[",
        b"GET /v1/replicas/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b'\x10\0\0\0\0\0\0\0\x01{"name": [[[[[[',
        *(chance.randbytes(size) for size in (1, 7, 23, 24, 25, 48, 1000, 65536)),
    ]


def throw(family: int, kind: int, address: object, thrown: bytes) -> None:
    """Send it, wait for what comes, and hold the door for a silent moment; the other side may close at any time."""
    with socket.socket(family, kind) as sock:
        sock.settimeout(0.2)
        try:
            sock.connect(address)  # type: ignore[arg-type]
            sock.sendall(thrown)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except OSError:
            pass


def test_garbage_on_every_port(cluster: Cluster) -> None:
    victim, other = cluster.agents("victim", "other")
    path = make_file(cluster.path("data"), 8 * MIB)
    victim.ok("register", path, "--name", "data")
    status = victim.status()
    for where in ("control", "rpc", "data"):
        host, _, port = status[where].rpartition(":")
        for thrown in garbage():
            throw(socket.AF_INET, socket.SOCK_STREAM, (host, int(port)), thrown)
    for file in ("agent.sock", "local.sock"):
        for thrown in garbage():
            for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                throw(socket.AF_UNIX, kind, str(victim.home / "run" / file), thrown)
    after = victim.status()
    assert (after["pid"], after["objects"]) == (status["pid"], 1)
    for transport in ("tcp", "local"):
        dest = cluster.path(f"copy-{transport}")
        other.ok("get", "data", dest, "--transport", transport, "--no-seed")
        assert dest.read_bytes() == path.read_bytes()
    assert "Traceback" not in (victim.home / "log" / "agent.log").read_text(), victim.log()


def test_silent_connections_disturb_nobody(cluster: Cluster) -> None:
    """Strangers connect to every port, say nothing, and stay."""
    victim, other = cluster.agents("victim", "other")
    path = make_file(cluster.path("data"), 8 * MIB)
    victim.ok("register", path, "--name", "data")
    status = victim.status()
    held = []
    try:
        for where in ("control", "rpc", "data"):
            host, _, port = status[where].rpartition(":")
            held += [socket.create_connection((host, int(port))) for _ in range(100)]
        dest = cluster.path("copy")
        other.ok("get", "data", dest, "--transport", "tcp")
        assert dest.read_bytes() == path.read_bytes()
        pid = victim.signal(signal.SIGTERM)
        eventually(lambda: pid not in cluster.processes(), "it ends all the same")
    finally:
        for connection in held:
            connection.close()


@pytest.mark.slow
def test_an_agents_socket_that_does_not_answer(cluster: Cluster) -> None:
    """A stopped agent: commands give up with a sentence, and ``node stop`` says what is left to do."""
    agent = cluster.agent("stunned")
    with agent.frozen():
        error = agent.fails(5, "list")
        assert error["type"] == "AgentUnreachable"
        assert str(agent.home) in error["message"]
    eventually(lambda: agent.run("list").status == 0, "it is awake again")
