"""The server of an agent's metrics: what it answers, to whom, and what keeps it from starting."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.agent.launch import ensure_agent, stop_agent
from p2pstore.agent.metrics_server import MetricsServer
from p2pstore.errors import AgentNotRunning, NoSuchAddress, UsageError
from p2pstore.settings.keys import AGENT_METRICS_PORT, KEYS
from p2pstore.settings.settings import Settings
from tests.p2pstore.metrics.test_exposition import BROWSER, OPENMETRICS, samples

WAIT = 60.0


def started(directory: Path, metrics: str) -> AgentClient:
    home = Home.resolve(directory / "home", {})
    flags = {"home": str(home.root), "metadata": "memory://metrics", "metrics": metrics, "node": "secretive"}
    assert ensure_agent(home, Settings.load(flags, environ=dict(os.environ), cwd=directory, system=directory / "none"))
    return AgentClient(home)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentClient]:
    client = started(tmp_path_factory.mktemp("metrics"), "127.0.0.1:0")
    yield client
    stop_agent(client.home)


def ask(
    agent: AgentClient, *, accept: str = "", path: str = "", method: str = "GET", host: str = ""
) -> tuple[int, str, str]:
    url = urlsplit(agent.status()["metrics"])
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=WAIT)
    try:
        connection.request(
            method,
            path or url.path,
            headers={**({"Accept": accept} if accept else {}), **({"Host": host} if host else {})},
        )
        answer = connection.getresponse()
        assert "Server" not in answer.headers
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def test_both_formats_over_the_network_say_the_same(agent: AgentClient) -> None:
    status, kind, text = ask(agent, accept=BROWSER)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    status, kind, open_text = ask(agent, accept=OPENMETRICS)
    assert status == 200
    assert kind.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    found = samples(text, openmetrics=False), samples(open_text, openmetrics=True)
    ours = [{key for key in each if key[0].startswith("mooncake_")} for each in found]
    assert ours[0] == ours[1]
    assert all(each["mooncake_agent_metadata_up", ()] == 1 for each in found)


def test_a_port_of_0_is_told_in_the_status(agent: AgentClient) -> None:
    url = urlsplit(agent.status()["metrics"])
    assert (url.scheme, url.hostname, url.path) == ("http", "127.0.0.1", "/metrics")
    assert url.port


def test_no_name_of_an_object_a_peer_or_a_path_is_told(agent: AgentClient, tmp_path: Path) -> None:
    """Whoever reaches the port needs no password."""
    (tmp_path / "private-file").write_bytes(b"x" * 100)
    events = list(
        agent.register(
            str(tmp_path / "private-file"), "private-name", chunk_size=None, hash_name="xxh3_128", force=False
        )
    )
    assert events[-1]["event"] == "result"
    told = ask(agent)[2]
    assert samples(told, openmetrics=False)["mooncake_agent_objects", ()] >= 1
    status = agent.status()
    for word in (
        "private",
        "secretive",
        str(tmp_path),
        str(agent.home.root),
        status["control"],
        events[-1]["manifest"],
    ):
        assert word not in told


def test_no_page_of_the_web_reads_them_from_loopback(agent: AgentClient) -> None:
    """Its own host's name may have come to mean loopback."""
    assert ask(agent, host="example.com:9401")[0] == 403
    assert ask(agent, host="localhost:9401")[0] == 200


def test_nothing_else_is_served(agent: AgentClient) -> None:
    assert ask(agent, path="/v1/status")[0] == 404
    assert ask(agent, method="POST")[0] == 405


def test_off_unless_set(tmp_path: Path) -> None:
    home = Home.resolve(tmp_path / "home", {})
    flags = {"home": str(home.root), "metadata": "memory://none"}
    ensure_agent(home, Settings.load(flags, environ=dict(os.environ), cwd=tmp_path, system=tmp_path / "none"))
    try:
        assert AgentClient(home).status()["metrics"] is None
    finally:
        stop_agent(home)


def test_a_port_that_is_taken_keeps_the_agent_from_starting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="Address already in use"):
        started(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(AgentNotRunning):
        AgentClient(Home.resolve(tmp_path / "home", {})).status()


def test_an_address_that_is_not_of_this_host() -> None:
    with pytest.raises(NoSuchAddress):
        MetricsServer("198.51.100.1:0")


def test_the_port_has_a_default() -> None:
    assert KEYS["metrics"].read("127.0.0.1", Path()) == "127.0.0.1"
    assert str(AGENT_METRICS_PORT) in KEYS["metrics"].help
    with pytest.raises(ValueError, match="no place to listen"):
        KEYS["metrics"].read("not an address", Path())


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from p2pstore.agent.agent import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-c", code, "--home", str(home), "--metadata", "memory://x"],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
        env={**os.environ, "MOONCAKE_METRICS": "127.0.0.1:0"},
        cwd=Path(__file__).resolve().parents[3],
    )
    assert done.returncode == UsageError.exit_code, done.stderr
    assert "the setting metrics needs the package prometheus-client" in done.stderr
    assert "Traceback" not in done.stderr
    left = Home.resolve(home, {}).start_error.read_text()
    assert "mooncake-cli[metrics]" in json.loads(left)["error"]["advice"]
