"""What a register takes of a directory, from end to end: links as 'hf download' leaves them, and what is left out."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.cluster import COMMAND_TIMEOUT, Agent, Cluster, eventually, make_file, same

MIB = 1 << 20


def hub(root: Path) -> Path:
    """The cache of Hugging Face's tools: a snapshot of links into a directory of blobs."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "abc123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, name in enumerate(("model.safetensors", "config.json")):
        make_file(blobs / f"blob{number}", MIB + number, seed=number)
        (snapshot / name).symlink_to(f"../../blobs/blob{number}")
    return snapshot


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def test_a_snapshot_of_links_arrives_as_files(source: Agent, getter: Agent, shared: Cluster) -> None:
    snapshot = hub(shared.path("hub"))
    done = source.run("register", snapshot, "--name", "hf")
    assert done.status == 0, done
    assert "2 files are links to the outside, whose content is published: " in done.err
    dest = shared.path("hf-copy")
    getter.ok("get", "hf", dest, "--transport", "tcp")
    assert files(dest) == files(snapshot)
    for name in files(dest):
        assert not (dest / name).is_symlink()
        assert (dest / name).read_bytes() == (snapshot / name).read_bytes()
    assert source.ok("verify", "hf")["ok"]


def test_in_a_directory_a_file_with_a_colon_has_its_name_and_a_version_the_objects(
    source: Agent, getter: Agent, shared: Cluster
) -> None:
    root, into = shared.path("colons"), shared.path("colons-copy")
    root.mkdir()
    into.mkdir()
    file = make_file(root / "a:b", MIB, seed=21)
    source.ok("register", root, "--name", "colons")
    getter.ok("get", "colons/a:b", f"{into}/")
    assert files(into) == {"a:b"}
    assert same(into / "a:b", file)
    tagged = make_file(shared.path("colons-tagged"), MIB, seed=22)
    source.ok("register", tagged, "--name", "colons/a", "--tag", "b")
    getter.ok("get", "colons/a:b", f"{into}/")
    assert same(into / "a", tagged)


def test_a_link_as_path_goes_on_to_be_served_when_it_leads_elsewhere(
    source: Agent, getter: Agent, shared: Cluster
) -> None:
    steps = [shared.path(f"step-{number}") for number in (1, 2)]
    for number, step in enumerate(steps):
        make_file(step, MIB, seed=10 + number)
    latest = shared.path("latest")
    latest.symlink_to(steps[0])
    source.ok("register", latest, "--name", "latest")
    assert source.ok("verify", latest)["path"] == str(steps[0])
    latest.unlink()
    latest.symlink_to(steps[1])
    dest = shared.path("latest-copy")
    getter.ok("get", "latest", dest, "--transport", "tcp")
    assert same(steps[0], dest)
    source.ok("register", latest, "--name", "latest", "--force")
    assert source.ok("verify", "latest")["path"] == str(steps[1])


def test_what_is_left_out_is_said_and_stays_at_home(source: Agent, getter: Agent, shared: Cluster) -> None:
    volume = shared.path("volume")
    for directory in ("lost+found", ".git", ".cache/huggingface", "tmp"):
        (volume / directory).mkdir(parents=True)
        (volume / directory / "inside").write_bytes(b"x")
    make_file(volume / "w", MIB, seed=20)
    done = source.run("register", volume, "--name", "volume", "--exclude", "tmp/")
    assert done.status == 0, done
    for name in ("lost+found", ".git", ".cache/huggingface"):
        assert name in done.err
    assert "--all" in done.err
    dest = shared.path("volume-copy")
    getter.ok("get", "volume", dest, "--transport", "tcp")
    assert files(dest) == {"w"}
    assert not (dest / "lost+found").exists()
    source.ok("register", volume, "--name", "volume-whole", "--all")
    getter.ok("get", "volume-whole", shared.path("whole-copy"), "--transport", "tcp")
    assert files(shared.path("whole-copy")) == files(volume)


def test_a_restart_finds_again_what_was_registered_with_patterns(cluster: Cluster) -> None:
    (agent,) = cluster.agents("source")
    root = cluster.path("root")
    root.mkdir()
    make_file(root / "w", MIB, seed=30)
    make_file(root / "w.tmp", MIB, seed=31)
    agent.ok("register", root, "--name", "n", "--exclude", "*.tmp")
    agent.stop()
    os.utime(root / "w", ns=(1, 1))  # as a copy back from a backup would
    agent.start()
    eventually(lambda: agent.holders("n"), "it is served again")
    assert agent.ok("verify", "n")["ok"]


def test_everything_that_is_in_the_way_is_named_with_what_to_do(source: Agent, shared: Cluster) -> None:
    root = shared.path("mixed")
    root.mkdir()
    (root / "w").write_bytes(b"x")
    made = {
        "a b;c": lambda path: path.symlink_to("nowhere"),
        "loop": lambda path: path.symlink_to("loop"),
        "directory": lambda path: path.symlink_to("."),
        "pipe": os.mkfifo,
        "--help": os.mkfifo,
    }
    for name, make in made.items():
        make(root / name)
        error = source.fails(2, "register", root, "--name", "mixed")
        assert str(root / name) in error["message"]
        command = error["advice"].removeprefix("leave it out with ")
        (root / name).rename(root.with_name("in-the-way"))  # to have it alone once more, and with its pattern
        source.ok("register", root, "--name", "mixed", "--force")
        (root.with_name("in-the-way")).rename(root / name)
        option, pattern = shlex.split(command)
        source.ok("register", root, "--name", "mixed", "--force", option, pattern)
        (root / name).unlink()
    shutil.rmtree(root)


def test_one_shard_of_eight_is_an_eighth(source: Agent, getter: Agent, shared: Cluster) -> None:
    root = shared.path("shards")
    root.mkdir()
    for number in range(8):
        make_file(root / f"model-{number}.safetensors", 2 * MIB, seed=40 + number)
    (root / "config.json").write_bytes(b"{}")
    source.ok("register", root, "--name", "models/shards", "--chunk-size", "1MiB")
    dest = shared.path("one-shard")
    done = getter.ok("get", "models/shards", dest, "--include", "model-3*", "--transport", "tcp")
    assert (done["bytes_pulled"], done["files"], done["seeding"]) == (2 * MIB, 1, True)
    assert files(dest) == {"model-3.safetensors"}
    assert same(root / "model-3.safetensors", dest / "model-3.safetensors")

    one = shared.path("one.safetensors")
    done = getter.ok("get", "models/shards/model-5.safetensors", one, "--transport", "tcp")
    assert done["bytes_pulled"] == 2 * MIB
    assert same(root / "model-5.safetensors", one)
    assert getter.ok("get", "models/shards/model-5.safetensors", one)["bytes_pulled"] == 0

    start = shared.path("start")
    done = getter.ok("get", "models/shards/model-6.safetensors", start, "--range", "0-99", "--transport", "tcp")
    assert done["bytes_pulled"] == MIB
    assert start.read_bytes() == (root / "model-6.safetensors").read_bytes()[:100]
    assert getter.fails(3, "get", "models/shards/nothing", shared.path("nothing"))["type"] == "NotInObject"


def test_a_path_never_leads_out_of_the_destination(source: Agent, getter: Agent, shared: Cluster) -> None:
    root = shared.path("inside")
    root.mkdir()
    make_file(root / "w", MIB, seed=50)
    source.ok("register", root, "--name", "inside")
    victim = shared.path("victims")
    victim.mkdir()
    for name in ("inside/../w", "inside/..", "inside/./w"):
        assert getter.fails(2, "get", name, f"{victim}/")["type"] == "UsageError"
    assert not files(victim)


def piped(agent: Agent, *arguments: str, reader: str) -> tuple[int, bytes, str]:
    """A command whose standard output goes to a shell's ``reader``: its status, what the reader says, its errors."""
    words = [sys.executable, "-m", "mooncake_cli", "--home", str(agent.home), "--metadata", str(agent.metadata)]
    script = f"set -o pipefail; {shlex.join([*words, *arguments])} | {reader}; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(
        ["bash", "-c", script], env=agent.environment, capture_output=True, check=False, timeout=COMMAND_TIMEOUT
    )
    *errors, status = done.stderr.decode().splitlines()
    return int(status), done.stdout, "\n".join(errors)


def test_standard_output(source: Agent, getter: Agent, shared: Cluster) -> None:
    path = make_file(shared.path("stream"), 150 * MIB + 5, seed=80)
    source.ok("register", path, "--name", "stream")
    status, out, errors = piped(getter, "get", "stream", "-", "--transport", "tcp", reader=f"cmp - {path} && echo same")
    assert (status, out) == (0, b"same\n"), errors
    assert errors.startswith("got 1 file of stream: 150.0 MiB by tcp from 1 peer")
    assert errors.endswith("verified on standard output")
    status, out, errors = piped(getter, "get", "stream", "-", "--range", "0-9", "--json", reader="cat")
    assert (status, out) == (0, path.read_bytes()[:10])
    assert json.loads(errors)["size"] == 10
    assert piped(getter, "get", "stream", "-", "-q", "--range", "-3", reader="cat") == (0, path.read_bytes()[-3:], "")


def test_a_reader_that_has_enough(source: Agent, getter: Agent, shared: Cluster) -> None:
    path = make_file(shared.path("long"), 100 * MIB, seed=81)
    source.ok("register", path, "--name", "long")
    status, out, errors = piped(getter, "get", "long", "-", reader="head -c 5")
    assert (status, out, errors) == (141, path.read_bytes()[:5], "")
    eventually(lambda: getter.status()["gets"] == 0, "its get has ended")


def test_what_is_not_for_standard_output(getter: Agent, shared: Cluster) -> None:
    for option in ("--force", "--dry-run", "--wipe"):
        assert f"{option} is for files" in getter.fails(2, "get", "stream", "-", option)["message"]
    assert getter.fails(3, "get", "stream/none", "-")["type"] == "NotInObject"


def test_a_partial_copy_serves_what_it_has(cluster: Cluster) -> None:
    source, shard, getter = cluster.agents("source", "shard", "getter")
    root = cluster.path("shards")
    root.mkdir()
    for number in range(4):
        make_file(root / f"model-{number}.safetensors", 2 * MIB, seed=90 + number)
    source.ok("register", root, "--name", "models/parts", "--chunk-size", "1MiB")
    assert shard.ok("get", "models/parts", cluster.path("one"), "--include", "model-2*")["seeding"]
    for end in (shard.kill, shard.stop):
        end()
        shard.start()
        assert shard.holders("models/parts")["shard"]["chunks"] == 2
    source.kill()
    dest = cluster.path("copy")
    done = getter.ok("get", "models/parts/model-2.safetensors", dest, "--wait", "--transport", "tcp")
    assert done["peers"] == {"shard": 2 * MIB}
    assert same(root / "model-2.safetensors", dest)
    assert [one["role"] for one in getter.ok("unregister", "models/parts")["withdrawn"]] == ["part"]
    source.start()
    done = shard.ok("get", "models/parts", cluster.path("whole"), "--wait", "--transport", "tcp")
    assert (done["bytes_pulled"], done["bytes_reused"]) == (6 * MIB, 2 * MIB)
    assert files(cluster.path("whole")) == files(root)
