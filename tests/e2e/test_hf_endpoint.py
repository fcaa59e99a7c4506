"""The released `hf` command and huggingface_hub, unchanged, on the endpoint of two real agents; only one has the model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from p2pstore.hub.documents import commit_of
from tests.e2e.cluster import Agent, Cluster, eventually, make_file, same, tree
from tests.p2pstore.hub.stand_in import StandIn

MIB = 1 << 20
HF = Path(sys.executable).with_name("hf")
NAME = "org/model"
SHARD = 24 * MIB
WAIT = 240.0
SERVED = {"MOONCAKE_HF_ENDPOINT": "127.0.0.1:0", "MOONCAKE_TRANSPORT": "tcp"}
"""Over TCP, since limits hold for what is sent."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model") / "model"
    (root / "sub").mkdir(parents=True)
    (root / "config.json").write_text('{"model_type": "llama"}')
    (root / "sub" / "merges é.txt").write_text("a b\n")
    (root / "empty").touch()
    for number in range(2):
        make_file(root / f"model-{number}.safetensors", SHARD, number)
    return root


@pytest.fixture
def agents(cluster: Cluster, model: Path) -> tuple[Agent, Agent]:
    """One that registered the model, and one that has nothing and serves the endpoint."""
    one, other = cluster.agents("one", "other", **SERVED)
    one.ok("register", model, "--name", NAME)
    return one, other


def endpoint_of(agent: Agent) -> str:
    return str(agent.status()["hf_endpoint"])


class Client:
    """What runs beside the agents as their user's program."""

    def __init__(self, agent: Agent, home: Path) -> None:
        self.home = home
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        self.environment = {
            **kept,
            "HF_ENDPOINT": endpoint_of(agent),
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # They are 10 s, in which a busy machine may not have answered.
            "HF_HUB_ETAG_TIMEOUT": "100",
            "HF_HUB_DOWNLOAD_TIMEOUT": "100",
        }

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [HF, *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def download(self, *arguments: object, dest: str = "got") -> Path:
        with self.begin("download", NAME, *arguments, "--local-dir", self.home / dest) as process:
            out, _ = process.communicate(timeout=WAIT)
        assert process.returncode == 0, out
        return self.home / dest

    @property
    def incomplete(self) -> int:
        """Bytes of downloads that have begun."""
        size = 0
        for path in self.home.rglob("*.incomplete"):
            with contextlib.suppress(FileNotFoundError):  # it is whole now, and has another name
                size += path.stat().st_size
        return size


@pytest.fixture
def client(agents: tuple[Agent, Agent], tmp_path: Path) -> Client:
    return Client(agents[1], tmp_path)


def without_cache(root: Path) -> dict[str, bytes | None]:
    return {path: data for path, data in tree(root).items() if not path.startswith(".cache")}


def test_hf_download(agents: tuple[Agent, Agent], client: Client, model: Path) -> None:
    one, other = agents
    assert without_cache(client.download()) == tree(model)
    held = eventually(lambda: other.holders(NAME).get("other", {}).get("state") == "complete", "it is held there, too")
    assert held
    one.stop()
    assert without_cache(client.download("--revision", "main", dest="again")) == tree(model)


def test_it_brings_what_is_asked_for(agents: tuple[Agent, Agent], client: Client, model: Path) -> None:
    _, other = agents
    got = client.download("--include", "*.json", "--include", "model-1*")
    assert sorted(without_cache(got)) == ["config.json", "model-1.safetensors"]
    assert same(got / "model-1.safetensors", model / "model-1.safetensors")
    chunks = other.ok("info", NAME)
    (mine,) = [each for each in chunks["replicas"] if each["node"] == "other"]
    assert mine["state"] == "partial"


def test_a_snapshot_of_a_commit_and_its_checksums(agents: tuple[Agent, Agent], client: Client) -> None:
    commit = commit_of(agents[0].ok("info", NAME)["manifest"])
    for command in (["download", NAME, "--revision", commit], ["cache", "verify", NAME, "--revision", commit]):
        with client.begin(*command) as process:
            out, _ = process.communicate(timeout=WAIT)
        assert process.returncode == 0, out
    assert (client.home / "hf" / "hub" / "models--org--model" / "snapshots" / commit / "config.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_was_killed_begins_again(
    agents: tuple[Agent, Agent], client: Client, model: Path, number: signal.Signals
) -> None:
    """What came for it stays here, so that it comes from here the second time."""
    one, _ = agents
    one.ok("node", "limit", "--upload", "4MB/s")
    process = client.begin("download", NAME, "--local-dir", client.home / "got")
    eventually(lambda: client.incomplete or process.poll() is not None, "it has begun")
    process.send_signal(number)
    process.communicate(timeout=WAIT)
    one.ok("node", "limit", "--upload", 0)
    assert without_cache(client.download()) == tree(model)


def test_a_peer_that_dies_in_the_middle_costs_nothing_where_another_has_it(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    one, second, other = cluster.agents("one", "second", "other", **SERVED)
    one.ok("register", model, "--name", NAME)
    second.ok("get", NAME, cluster.path("second"))
    for holder in (one, second):
        holder.ok("node", "limit", "--upload", "6MB/s")
    client = Client(other, tmp_path)
    process = client.begin("download", NAME, "--local-dir", client.home / "got")
    eventually(lambda: client.incomplete or process.poll() is not None, "it has begun")
    one.kill()
    second.ok("node", "limit", "--upload", 0)
    out, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, out
    assert without_cache(client.home / "got") == tree(model)


def test_a_broken_connection_goes_on_by_range(agents: tuple[Agent, Agent], model: Path) -> None:
    url = f"{endpoint_of(agents[1])}/{NAME}/resolve/main/model-0.safetensors"
    with urllib.request.urlopen(url, timeout=WAIT) as answer:
        begun = answer.read(5 * MIB + 3)
    request = urllib.request.Request(url, headers={"Range": f"bytes={len(begun)}-"})
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        assert answer.status == 206
        rest = answer.read()
    assert begun + rest == (model / "model-0.safetensors").read_bytes()


def test_it_goes_on_after_the_agent_was_killed(agents: tuple[Agent, Agent], client: Client, model: Path) -> None:
    """What was verified before lies in its journal."""
    one, other = agents
    client.download("--include", "model-0*")
    other.kill()
    one.ok("node", "limit", "--upload", 1)
    other.start()
    client.environment["HF_ENDPOINT"] = endpoint_of(other)
    got = client.download("--include", "model-0*", dest="again")
    assert same(got / "model-0.safetensors", model / "model-0.safetensors")


def test_the_hub_is_read_once_and_a_node_without_it_is_served(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    hub = StandIn()
    try:
        hub.repos[NAME] = {p.relative_to(model).as_posix(): p.read_bytes() for p in model.rglob("*") if p.is_file()}
        one = cluster.agent("one", **SERVED, MOONCAKE_HF_UPSTREAM=hub.url)
        other = cluster.agent("other", **SERVED)
        client = Client(one, tmp_path / "one")
        hub.break_after["model-0.safetensors"] = [9 * MIB]
        hub.hold.clear()
        process = client.begin("download", NAME, "--local-dir", client.home / "got")
        eventually(lambda: client.incomplete or process.poll() is not None, "it has begun")
        hub.down = True  # what is under way goes on, what breaks off does not at first
        hub.hold.set()
        time.sleep(1)
        hub.down = False
        out, _ = process.communicate(timeout=WAIT)
        assert process.returncode == 0, out
        assert without_cache(client.home / "got") == tree(model)
        assert without_cache(Client(other, tmp_path / "other").download()) == tree(model)
        sizes = {path: len(data) for path, data in hub.repos[NAME].items() if data}
        broke = "model-0.safetensors"
        assert hub.sent[broke] < sizes.pop(broke) + 9 * MIB, "it went on, but for what was in the sockets"
        assert {path: hub.sent[path] for path in sizes} == sizes
        one.stop()
        assert without_cache(Client(other, tmp_path / "again").download()) == tree(model)
    finally:
        hub.close()


def test_what_was_read_of_the_hub_is_not_read_again_after_a_kill(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    """In the middle of a file."""
    hub = StandIn()
    try:
        large = make_file(tmp_path / "large", 100 * MIB).read_bytes()
        hub.repos[NAME] = {"model.safetensors": large}
        agent = cluster.agent("one", **SERVED, MOONCAKE_HF_UPSTREAM=hub.url)
        client = Client(agent, tmp_path)
        hub.hold.clear()
        hub.held_from = 84 * MIB
        with client.begin("download", NAME, "--local-dir", tmp_path / "got") as process:
            eventually(lambda: len([n for n in agent.names() if n.startswith("origins/")]) == 5, "five sections")
            process.kill()
        agent.kill()
        hub.hold.set()
        agent.start()
        client.environment["HF_ENDPOINT"] = endpoint_of(agent)
        asked = len(hub.asked_ranges)
        got = client.download(dest="again")
        assert (got / "model.safetensors").read_bytes() == large
        read = {wanted for _, wanted in hub.asked_ranges[asked:]} - {"bytes=0-0"}
        assert read == {f"bytes={80 * MIB}-{96 * MIB - 1}", f"bytes={96 * MIB}-{100 * MIB - 1}"}
    finally:
        hub.close()


def test_where_it_may_listen(cluster: Cluster, tmp_path: Path) -> None:
    agent = cluster.agent("alone", start=False)
    error = agent.fails(7, "node", "start", "--hf-endpoint", "0.0.0.0:0")
    assert "without a token" in error["message"]
    assert agent.fails(2, "node", "start", "--hf-endpoint", "nonsense")
    token = tmp_path / "token"
    token.write_text("hf_a_token_of_ours")
    agent.environment["MOONCAKE_HF_TOKEN_FILE"] = str(token)
    agent.start("--hf-endpoint", "0.0.0.0:0")
    assert agent.status()["hf_endpoint"].startswith("http://0.0.0.0:")
    agent.stop()
    agent.start()
    assert agent.status()["hf_endpoint"] is None
