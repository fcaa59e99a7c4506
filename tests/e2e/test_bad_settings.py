"""Settings that cannot be: a bad file, home, address or secret is named, and the place that it came from."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from tests.e2e.cluster import Agent, Cluster, make_file
from tests.ports import reserved_port

MIB = 1 << 20


def test_unknown_and_bad_configuration(shared: Cluster, source: Agent) -> None:
    config = shared.path("config.toml")
    for text, told in {
        "metadatta = 'etcd://a:1'\n": "did you mean metadata",
        "lease_ttl = 'soon'\n": "lease_ttl",
        "secret = 'x'\n": "MOONCAKE_SECRET",
        "this is no toml": "TOML",
        "chunk_size = 0\n": "chunk_size",
    }.items():
        config.write_text(text)
        for command in (["list"], ["node", "start"], ["config", "show"]):
            error = source.fails(2, "--config", config, *command)
            assert error["type"] == "BadConfig"
            assert str(config) in error["message"]
            assert told in error["message"]
    error = source.fails(2, "--config", shared.path("nowhere.toml"), "list")
    assert str(shared.path("nowhere.toml")) in error["message"]


def test_a_home_that_cannot_be(shared: Cluster, data: Path) -> None:
    agent = shared.agent("homeless", start=False)
    agent.home = data / "home"
    for command in (["node", "start"], ["node", "run"], ["register", data]):
        error = agent.fails(8, *command)
        assert error["type"] == "HomeUnusable"
        assert str(data) in error["message"]


def test_a_home_with_a_very_long_path(shared: Cluster, data: Path) -> None:
    agent = shared.agent("long", start=False)
    agent.home = shared.root / ("x" * 90) / ("y" * 90)
    got = agent.ok("get", "data", shared.path("long-home"), "--transport", "local")
    assert got["bytes_pulled"] == data.stat().st_size
    agent.stop()


def test_an_open_address_takes_a_secret_or_insecure(cluster: Cluster) -> None:
    agent = cluster.agent("open", start=False)
    port = reserved_port(3)
    error = agent.fails(7, "node", "start", "--listen", f"0.0.0.0:{port}")
    assert error["type"] == "ListenRefused"
    assert "--insecure" in error["advice"]
    assert "MOONCAKE_SECRET_FILE" in error["advice"]
    agent.start("--listen", f"0.0.0.0:{port}", "--insecure")
    status = agent.status()
    assert (status["listen"], status["control"].rpartition(":")[2]) == ("0.0.0.0", str(port))
    agent.stop()
    agent.environment["MOONCAKE_SECRET"] = "of the cluster"
    agent.start("--listen", f"0.0.0.0:{port}")
    agent.stop()


def test_an_address_that_is_taken_or_not_ours(cluster: Cluster) -> None:
    agent = cluster.agent("crammed", start=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = agent.fails(2, "node", "start", "--listen", address)["message"]
        # The two ports that follow are wanted too, and may be taken by somebody else just now.
        assert re.search(r"cannot listen on 127\.0\.0\.1:\d+: .*address already in use", message, re.IGNORECASE)
    assert "192.0.2.77" in agent.fails(2, "node", "start", "--listen", "192.0.2.77", "--insecure")["message"]
    assert agent.fails(2, "node", "start", "--listen", "127.0.0.1:99999")["message"]
    assert cluster.processes() == [cluster.etcds[0].pid]


def test_the_cluster_secret(cluster: Cluster) -> None:
    file = cluster.path("secret")
    file.write_text("sesame\n")
    file.chmod(0o600)
    source = cluster.agent("source", MOONCAKE_SECRET_FILE=str(file))
    path = make_file(cluster.path("guarded"), 2 * MIB)
    source.ok("register", path, "--name", "guarded")
    control = source.status()["control"]
    right = cluster.agent("right", MOONCAKE_SECRET="sesame")
    wrong, missing = cluster.agent("wrong", MOONCAKE_SECRET="mustard"), cluster.agent("missing")
    for transport in ("tcp", "local"):
        for agent in (wrong, missing):
            for options in ([], ["--peer", control]):
                dest = cluster.path("stolen")
                error = agent.fails(7, "get", "guarded", dest, "--transport", transport, *options)
                assert error["type"] == "SecretRefused"
                assert "MOONCAKE_SECRET_FILE" in error["advice"]
                assert "sesame" not in str(error)
                assert not dest.exists()
        dest = cluster.path(f"copy-{transport}")
        right.ok("get", "guarded", dest, "--transport", transport, "--no-seed")
        assert dest.read_bytes() == path.read_bytes()
    for agent in (source, right, wrong):
        assert b"sesame" not in (agent.home / "log" / "agent.log").read_bytes()
