"""The main job: registered on one node, got on another, verified, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Agent, Cluster, eventually, flip, leftovers, make_file, resume, tree
from tests.ports import closed_port

REGISTERED = {"name", "manifest", "size", "chunk_size", "chunks", "files", "seconds"}
GOT = {"name", "manifest", "dest", "size", "bytes_pulled", "bytes_reused", "seconds", "transport", "peers"}
MIB = 1 << 20


def checkpoint(root: Path) -> Path:
    """A directory as Hugging Face lays a sharded checkpoint out, with all that makes directories difficult."""
    (root / "original" / "deep er" / "deeper still").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "empty but nested" / "inside").mkdir(parents=True)
    (root / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}\n')
    (root / "model.safetensors.index.json").write_text('{"weight_map": {}}\n')
    for shard in (1, 2, 3):
        make_file(root / f"model-0000{shard}-of-00003.safetensors", 3 * MIB + shard, seed=shard)
    (root / "original" / "nothing").touch()
    (root / "original" / "deep er" / "deeper still" / "größe, 模型 and 'quotes'.txt").write_text("ja\n")
    script = root / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return root


def register(agent: Agent, path: Path, name: str, *options: object) -> dict[str, Any]:
    answer: dict[str, Any] = agent.ok("register", path, "--name", name, *options)
    assert set(answer) >= REGISTERED
    return answer


@pytest.mark.parametrize("transport", ["tcp", "local", "auto"])
def test_a_file(shared: Cluster, source: Agent, getter: Agent, transport: str) -> None:
    path, name = make_file(shared.path(f"file-{transport}"), 5 * MIB + 17, seed=ord(transport[0])), transport
    registered = register(source, path, name)
    assert registered["name"] == name
    assert registered["size"] == 5 * MIB + 17
    assert (registered["chunk_size"], registered["chunks"], registered["files"]) == (MIB, 6, 1)
    dest = shared.path(f"copy-{transport}")
    got = getter.ok("get", name, dest, "--transport", transport)
    assert set(got) >= GOT
    assert dest.read_bytes() == path.read_bytes()
    assert got["manifest"] == registered["manifest"]
    assert got["dest"] == str(dest)
    assert (got["size"], got["bytes_pulled"], got["bytes_reused"]) == (path.stat().st_size, path.stat().st_size, 0)
    assert got["peers"] == {source.name: path.stat().st_size}
    assert got["transport"] == ("tcp" if transport == "tcp" else "local")
    assert leftovers(dest) == []


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_a_directory(shared: Cluster, source: Agent, getter: Agent, transport: str) -> None:
    root, name = checkpoint(shared.path(f"checkpoint-{transport}")), f"models/{transport}"
    registered = register(source, root, name)
    assert registered["files"] == 8
    dest = shared.path(f"checkpoint copy {transport}")
    got = getter.ok("get", name, dest, "--transport", transport, "--no-seed")
    assert tree(dest) == tree(root)
    assert os.access(dest / "run.sh", os.X_OK)
    assert got["size"] == registered["size"] == sum(len(c) for c in tree(root).values() if c is not None)
    assert leftovers(dest) == []


def test_an_empty_file(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name, dest = shared.path("nothing"), "nothing", shared.path("nothing-copy")
    path.touch()
    registered = register(source, path, name)
    assert (registered["size"], registered["chunks"], registered["files"]) == (0, 0, 1)
    got = getter.ok("get", name, dest)
    assert dest.read_bytes() == b""
    assert (got["size"], got["bytes_pulled"], got["bytes_reused"], got["peers"]) == (0, 0, 0, {})


def test_an_empty_directory(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name, dest = shared.path("hollow"), "hollow", shared.path("hollow-copy")
    (path / "inside" / "further").mkdir(parents=True)
    register(source, path, name)
    getter.ok("get", name, dest)
    assert tree(dest) == tree(path)


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_a_thousand_small_files(shared: Cluster, source: Agent, getter: Agent, transport: str) -> None:
    root, name = shared.path(f"many-{transport}"), f"many-{transport}"
    for number in range(1000):
        file = root / f"part {number % 10}" / f"ünïcode {number:04}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(transport.encode() * number)
    registered = register(source, root, name)
    assert registered["files"] == 1000
    dest = shared.path(f"many-copy-{transport}")
    getter.ok("get", name, dest, "--transport", transport)
    assert tree(dest) == tree(root)


def test_without_json_a_get_talks_to_people_on_stderr_alone(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name, dest = make_file(shared.path("talk"), MIB, seed=77), "talk", shared.path("talk-copy")
    done = source.run("register", path, "--name", name)
    assert (done.status, done.out) == (0, ""), done
    assert name in done.err
    done = getter.run("get", name, dest)
    assert (done.status, done.out) == (0, ""), done
    assert "1.0 MiB" in done.err
    assert "%" not in done.err, "no progress bar where there is no terminal"


def test_dry_run_writes_nothing(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name, dest = make_file(shared.path("dry"), 2 * MIB, seed=78), "dry", shared.path("dry-copy")
    register(source, path, name)
    before = sorted(p.name for p in shared.work.iterdir())
    got = getter.ok("get", name, dest, "--dry-run")
    assert (got["size"], got["bytes_pulled"], got["bytes_reused"]) == (2 * MIB, 2 * MIB, 0)
    assert got["peers"] == {source.name: 0}
    assert sorted(p.name for p in shared.work.iterdir()) == before
    assert set(getter.holders(name)) == {source.name}


def test_a_getter_is_a_replica_unless_no_seed(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name = make_file(shared.path("seed"), 2 * MIB, seed=79), "seed"
    register(source, path, name)
    getter.ok("get", name, shared.path("seed-quiet"), "--no-seed")
    assert set(getter.holders(name)) == {source.name}
    getter.ok("get", name, shared.path("seed-copy"))
    holders = source.holders(name)
    assert {n: (h["role"], h["state"], h["chunks"], h["of"]) for n, h in holders.items()} == {
        source.name: ("gold", "complete", 2, 2),
        getter.name: ("replica", "complete", 2, 2),
    }
    assert all(h["reachable"] for h in holders.values())


def test_an_equal_destination_is_recognised_and_another_refused(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name, dest = make_file(shared.path("there"), 3 * MIB, seed=80), "there", shared.path("there-copy")
    register(source, path, name)
    dest.write_bytes(path.read_bytes())
    inode = dest.stat().st_ino
    got = getter.ok("get", name, dest)
    assert (got["bytes_pulled"], got["bytes_reused"], got["peers"]) == (0, 3 * MIB, {})
    assert dest.stat().st_ino == inode
    assert getter.name in source.holders(name), "it holds the object now"

    other = shared.path("there-other")
    other.write_bytes(path.read_bytes()[:-1] + b"?")
    error = getter.fails(7, "get", name, other)
    assert error["type"] == "DestinationExists"
    assert "--force" in error["advice"]
    assert other.read_bytes() != path.read_bytes(), "what was there is untouched"
    getter.ok("get", name, other, "--force")
    assert other.read_bytes() == path.read_bytes()
    assert leftovers(other) == []


def test_force_replaces_a_directory_by_a_file_and_back(shared: Cluster, source: Agent, getter: Agent) -> None:
    file, folder = make_file(shared.path("swap-file"), MIB, seed=81), shared.path("swap-folder")
    folder.mkdir()
    make_file(folder / "x", MIB, seed=82)
    register(source, file, "swap-file")
    register(source, folder, "swap-folder")
    dest = shared.path("swap-dest")
    getter.ok("get", "swap-file", dest)
    getter.ok("get", "swap-folder", dest, "--force")
    assert tree(dest) == tree(folder)
    getter.ok("get", "swap-file", dest, "--force")
    assert tree(dest) == tree(file)
    assert leftovers(dest) == []
    assert getter.name not in source.holders("swap-folder"), "what was replaced is not held any more"


def test_a_destination_ending_in_a_slash_is_a_directory_to_put_it_in(
    shared: Cluster, source: Agent, getter: Agent
) -> None:
    path, name = make_file(shared.path("inside"), MIB, seed=83), "deep/inside.bin"
    register(source, path, name)
    into = shared.path("into")
    into.mkdir()
    got = getter.ok("get", name, f"{into}/")
    assert got["dest"] == str(into / "inside.bin")
    assert (into / "inside.bin").read_bytes() == path.read_bytes()


def test_several_sources_at_once(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name = make_file(shared.path("wide"), 48 * MIB, seed=84), "wide"
    register(source, path, name)
    getter.ok("get", name, shared.path("wide-copy"))
    third = shared.agent("third")
    for holder in (source, getter):
        holder.send_at_most(8 * MIB)
    attempt = 0

    def both() -> bool:
        # One source may be done before the other is found: that is no fault, so several gets may try.
        nonlocal attempt
        attempt += 1
        dest = shared.path(f"wide-{attempt}")
        got = third.ok("get", name, dest, "--transport", "tcp", "--no-seed")
        assert dest.read_bytes() == path.read_bytes()
        assert sum(got["peers"].values()) == got["bytes_pulled"] == 48 * MIB
        dest.unlink()
        return set(got["peers"]) == {source.name, getter.name}

    try:
        eventually(both, "a get took from both sources")
    finally:
        for holder in (source, getter):
            resume(holder)


def test_what_is_here_already_is_not_pulled(shared: Cluster, source: Agent, getter: Agent) -> None:
    old, new = shared.path("v1"), shared.path("v2")
    old.mkdir()
    new.mkdir()
    for folder in (old, new):
        make_file(folder / "a", 4 * MIB, seed=85)
    make_file(old / "b", 4 * MIB, seed=86)
    make_file(new / "b", 4 * MIB, seed=87)
    register(source, old, "v1")
    register(source, new, "v2")
    getter.ok("get", "v1", shared.path("v1-copy"))
    got = getter.ok("get", "v2", shared.path("v2-copy"))
    assert (got["bytes_reused"], got["bytes_pulled"]) == (4 * MIB, 4 * MIB)
    assert tree(shared.path("v2-copy")) == tree(new)


def test_list_info_verify_unregister(shared: Cluster, source: Agent, getter: Agent) -> None:
    path, name, dest = make_file(shared.path("life"), 3 * MIB, seed=88), "life", shared.path("life-copy")
    registered = register(source, path, name)
    getter.ok("get", name, dest)
    entry = next(o for o in getter.ok("list", name)["objects"] if o["name"] == name)
    assert (entry["complete"], entry["partial"], entry["size"]) == (2, 0, 3 * MIB)
    info = getter.ok("info", name)
    assert info["manifest"] == registered["manifest"]
    assert [(f["path"], f["size"], f["chunks"]) for f in info["files"]] == [("", 3 * MIB, 3)]
    assert getter.ok("verify", name)["ok"]
    assert getter.ok("verify", dest)["name"] == name

    withdrawn = source.ok("unregister", name)
    assert [(w["role"], w["path"]) for w in withdrawn["withdrawn"]] == [("gold", str(path))]
    assert not withdrawn["removed"]
    assert set(getter.holders(name)) == {getter.name}
    withdrawn = getter.ok("unregister", name)
    assert [(w["role"], w["path"]) for w in withdrawn["withdrawn"]] == [("replica", str(dest))]
    assert withdrawn["removed"]
    assert getter.fails(3, "info", name)["type"] == "ObjectNotFound"
    assert path.exists()
    assert dest.exists()


def test_verify_finds_what_was_flipped_behind_our_back(source: Agent, tmpfs: Path) -> None:
    path, name = make_file(tmpfs / "flip", 3 * MIB, seed=89), "flip"
    register(source, path, name)
    flip(path, [MIB + 5])
    done = source.run("verify", name, "--json")
    assert done.status == 4, done
    assert [(b["chunk"], b["offset"], b["length"]) for b in done.json["bad"]] == [(1, MIB, MIB)]
    assert source.holders(name) == {}, "what is wrong is not served any more"


def test_peers_alone_without_a_metadata_server(shared: Cluster, source: Agent) -> None:
    path, name = make_file(shared.path("peer"), 4 * MIB, seed=90), "peer"
    register(source, path, name)
    hermit = shared.agent("hermit", metadata=None)
    assert hermit.status()["metadata"] != source.status()["metadata"]
    assert hermit.fails(3, "get", name, shared.path("peer-not"))["type"] == "ObjectNotFound"
    dest = shared.path("peer-copy")
    got = hermit.ok("get", name, dest, "--peer", source.status()["control"], "--transport", "tcp")
    assert dest.read_bytes() == path.read_bytes()
    assert got["peers"] == {source.name: 4 * MIB}
    assert set(hermit.holders("peer")) == {"hermit"}, "its own metadata server knows the object now"
    error = hermit.fails(5, "get", "other", shared.path("no"), "--peer", f"127.0.0.1:{closed_port()}")
    assert error["type"] == "PeerUnreachable"
    assert error["message"].endswith("connection refused")


def test_the_second_agent_is_given_what_the_first_ones_status_says(alone: Cluster) -> None:
    first = alone.agent("first")
    path = make_file(alone.path("data"), 3 * MIB)
    register(first, path, "data")
    status = first.status()
    assert set(status) >= {"node", "pid", "home", "metadata", "control", "data", "objects"}
    assert (status["node"], status["pid"], status["home"], status["objects"]) == (
        first.name,
        first.pid,
        str(first.home),
        1,
    )
    second = alone.agent("second", metadata=status["metadata"], start=False)
    got = second.run("get", "data", alone.path("copy"), "--json")
    assert got.status == 0, got
    assert "started an agent in the background" in got.err, "and says so"
    assert alone.path("copy").read_bytes() == path.read_bytes()
    assert len(first.holders("data")) == 2


def test_etcd_inspect_shows_the_tree(shared: Cluster, source: Agent) -> None:
    path, name = make_file(shared.path("seen"), MIB, seed=91), "seen"
    register(source, path, name)
    shown = source.run("etcd", "inspect")
    assert shown.status == 0, shown
    assert name in shown.out
    assert source.name in shown.out
    document = source.ok("etcd", "inspect")
    assert name in str(document)
