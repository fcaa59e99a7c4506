"""The Python API against real agents: what a training job registers, the command line gets, and the other way round."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from p2pstore import P2PStore
from p2pstore.errors import (
    ChunkMismatch,
    MetadataUnavailable,
    NotHeld,
    ObjectExists,
    ObjectNotFound,
    UsageError,
)
from tests.e2e.cluster import LEASE_TTL, Agent, Cluster, eventually, make_file, tree
from tests.ports import closed_port

np = pytest.importorskip("numpy", reason="pip install numpy")
MIB = 1 << 20


@pytest.fixture(scope="module")
def url(shared: Cluster) -> str:
    assert shared.metadata is not None
    return shared.metadata


@pytest.fixture(scope="module", autouse=True)
def same_user(shared: Cluster) -> Iterator[None]:
    """The agents' user is this process's too: what is on loopback is for one user, who has one secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", shared.environment["XDG_STATE_HOME"])
        yield


@pytest.fixture
def store(url: str) -> Iterator[P2PStore]:
    with P2PStore(url, lease_ttl=LEASE_TTL) as made:
        yield made


@pytest.mark.parametrize("transport", ["tcp", "auto"])
def test_memory_to_a_file(shared: Cluster, store: P2PStore, getter: Agent, transport: str) -> None:
    data = np.random.default_rng(ord(transport[0])).integers(0, 255, 3 * MIB + 5, dtype=np.uint8)
    answer = store.register(f"array-{transport}", data)
    assert (answer["size"], answer["chunks"], answer["files"]) == (3 * MIB + 5, 4, 1)
    dest = shared.path(f"array-{transport}")
    got = getter.ok("get", answer["name"], dest, "--transport", transport)
    assert dest.read_bytes() == data.tobytes()
    assert got["peers"] == {store.node: 3 * MIB + 5}
    assert getter.holders(answer["name"])[store.node]["role"] == "gold"


def test_memory_is_not_within_reach_of_the_local_transport(shared: Cluster, store: P2PStore, getter: Agent) -> None:
    store.register("far", os.urandom(MIB))
    error = getter.fails(9, "get", "far", shared.path("far"), "--transport", "local")
    assert error["type"] == "TransportUnavailable"
    assert "--transport auto" in error["advice"]


def test_several_buffers_to_a_directory(shared: Cluster, store: P2PStore, getter: Agent) -> None:
    buffers = {
        "weights/w": np.arange(500_000, dtype=np.float32).reshape(500, 1000),
        "bias": b"some bytes",
        "view": memoryview(bytearray(2 * MIB))[MIB:],
        "nothing": bytearray(),
    }
    store.register("tensors", buffers)
    dest = shared.path("tensors")
    getter.ok("get", "tensors", dest, "--transport", "tcp")
    files = {path: content for path, content in tree(dest).items() if content is not None}
    assert files == {path: bytes(memoryview(b).cast("B")) if len(b) else b"" for path, b in buffers.items()}


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_a_file_into_memory(shared: Cluster, store: P2PStore, source: Agent, transport: str) -> None:
    name = f"shards-{transport}"
    folder = shared.path(name)
    (folder / "sub").mkdir(parents=True)
    make_file(folder / "one", 2 * MIB + 4, seed=20 + len(transport))
    make_file(folder / "sub" / "two", MIB, seed=3 + len(transport))
    source.ok("register", folder, "--name", name)
    one, two = np.zeros((2 * MIB + 4) // 4, dtype=np.uint32), bytearray(MIB)
    got = store.get_into(name, {"one": one, "sub/two": two}, transport=transport)
    assert one.tobytes() == (folder / "one").read_bytes()
    assert bytes(two) == (folder / "sub" / "two").read_bytes()
    assert (got["bytes_pulled"], got["transport"]) == (3 * MIB + 4, transport)
    assert got["peers"] == {source.name: 3 * MIB + 4}


def test_memory_to_memory_by_a_peers_address_alone(url: str) -> None:
    data = os.urandom(4 * MIB)  # equal chunks would come once
    with P2PStore(url, node="giver") as giver, P2PStore("memory://apart", node="taker") as taker:
        giver.register("handed", data)
        with pytest.raises(ObjectNotFound):
            taker.info("handed")
        room = bytearray(len(data))
        got = taker.get_into("handed", room, peers=[giver.control])
        assert room == data
        assert got["peers"] == {"giver": len(data)}


def test_files_as_the_command_line_does_it(shared: Cluster, store: P2PStore, getter: Agent) -> None:
    path = make_file(shared.path("plain"), 2 * MIB, seed=31)
    store.register("api/plain", path)
    with pytest.raises(ObjectExists):
        store.register("api/plain", b"other")
    assert [o["name"] for o in store.list("api/")] == ["api/plain"]
    getter.ok("get", "api/plain", shared.path("plain-copy"))
    told: list[tuple[int, int]] = []
    got = store.get("api/plain", shared.path("plain-second"), progress=lambda done, total: told.append((done, total)))
    assert got["bytes_reused"] == 2 * MIB
    assert {r["node"] for r in store.info("api/plain")["replicas"]} == {store.node, getter.name}
    assert not store.unregister("api/plain")["removed"]
    with pytest.raises(NotHeld):
        store.unregister("api/plain")


def test_many_files_at_once(shared: Cluster, store: P2PStore, getter: Agent) -> None:
    sources = {f"many/{i}": make_file(shared.path(f"many-{i}"), 100 + i) for i in range(3)}
    made = store.register_many({**sources, "many/none": shared.path("none")})
    assert [one["name"] for one in made["objects"]] == list(sources)
    assert [one["error"]["type"] for one in made["failed"]] == ["PathNotFound"]
    assert made["size"] == 303
    dest = shared.path("many-2-copy")
    getter.ok("get", "many/2", dest)
    assert dest.read_bytes() == sources["many/2"].read_bytes()


def test_what_does_not_fit(shared: Cluster, store: P2PStore, source: Agent) -> None:
    path = make_file(shared.path("fit"), MIB, seed=32)
    source.ok("register", path, "--name", "fit")
    for buffers in (bytearray(MIB - 1), bytes(MIB), {"other": bytearray(MIB)}, np.zeros((MIB, 2), np.uint8)[:, 0]):
        with pytest.raises(UsageError):
            store.get_into("fit", buffers)
    with pytest.raises(UsageError):
        store.register("strided", np.zeros((64, 64), np.uint8)[:, ::2])
    with pytest.raises(UsageError):
        store.register("outside", {"../x": b"1"})
    with pytest.raises(ObjectNotFound):
        store.get_into("missing", bytearray(1))


def test_memory_that_changes_is_refused_by_the_getter(shared: Cluster, store: P2PStore, getter: Agent) -> None:
    data = bytearray(os.urandom(2 * MIB))
    store.register("restless", data)
    data[MIB + 1] ^= 1
    error = getter.fails(4, "get", "restless", shared.path("restless"), "--transport", "tcp")
    assert error["type"] == ChunkMismatch.__name__
    assert store.node in error["message"]
    assert not shared.path("restless").exists()


def test_a_closed_store(url: str, source: Agent) -> None:
    store = P2PStore(url, node="brief")
    store.register("brief", b"x" * 100)
    assert set(source.holders("brief")) == {"brief"}
    store.close()
    store.close()
    assert source.holders("brief") == {}, "it left at once"
    with pytest.raises(UsageError):
        store.info("brief")


def test_no_metadata_server() -> None:
    with pytest.raises(MetadataUnavailable):
        P2PStore(f"etcd://127.0.0.1:{closed_port()}")


JOB = """
import sys, numpy as np
from p2pstore import P2PStore
url, size = sys.argv[1], int(sys.argv[2])
with P2PStore(url, node="job", lease_ttl=int(sys.argv[3])) as store:
    weights = {f"layer/{n}": np.full(size, n + 1, np.uint8) for n in range(4)}
    store.register("job/weights", weights)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(shared: Cluster, url: str) -> Iterator[subprocess.Popen[str]]:
    """A training job in a process of its own, which holds "job/weights"."""
    with subprocess.Popen(
        [sys.executable, "-c", JOB, url, str(4 * MIB), str(LEASE_TTL)],
        env=shared.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_job_hands_its_weights_on_and_is_killed(shared: Cluster, job: subprocess.Popen[str], getter: Agent) -> None:
    dest = shared.path("weights")
    getter.ok("get", "job/weights", dest)
    assert (dest / "layer" / "2").read_bytes() == b"\3" * 4 * MIB
    assert set(getter.holders("job/weights")) == {"job", getter.name}
    job.send_signal(signal.SIGKILL)
    eventually(lambda: set(getter.holders("job/weights")) == {getter.name}, "the job is gone")


def test_a_job_that_ends_leaves_at_once(job: subprocess.Popen[str], source: Agent) -> None:
    assert set(source.holders("job/weights")) >= {"job"}
    out, _ = job.communicate("")
    assert job.returncode == 0, out
    assert "job" not in source.holders("job/weights")
