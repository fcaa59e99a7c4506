"""What cannot be registered, or not under that name: an exit status, a sentence, and an agent that lives on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from p2pstore.pull.workplace import work_name
from tests.e2e.cluster import Agent, Cluster, eventually, halted_get, leftovers, make_file, resume, tree

MIB = 1 << 20


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
