"""Where nothing can be put, and nobody to get it from: an exit status, a sentence, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster, halted_get, make_file, ports_of_its_own, resume, tree

MIB = 1 << 20


def test_a_destination_in_a_missing_directory(getter: Agent, data: Path, shared: Cluster) -> None:
    error = getter.fails(3, "get", "data", shared.path("no") / "such" / "place")
    assert (error["type"], error["fields"]["path"]) == ("DirectoryMissing", str(shared.path("no") / "such"))


def test_a_destination_below_a_file(getter: Agent, data: Path) -> None:
    error = getter.fails(8, "get", "data", data / "below")
    assert str(data) in error["message"]
    assert "directory" in error["message"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 112 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=112m", "tmpfs", path], check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_disk_that_is_too_small(source: Agent, getter: Agent, shared: Cluster, small_disk: Path) -> None:
    path = make_file(shared.path("large"), 128 * MIB, 5)
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
        make_file(path / "one", 48 * MIB, 6)
        make_file(path / "two", 48 * MIB, 7)
    else:
        make_file(path, 96 * MIB, 6)
    source.ok("register", path, "--name", "filling", "--chunk-size", "1MiB")
    dest = small_disk / "x"
    fill = small_disk / "fill"
    running = halted_get(getter, [source], "filling", dest, "--no-seed")
    with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB // 4))
    resume(source)
    done = running.wait()
    assert done.status == 8, f"{done}\n{getter.log()}"
    assert done.error["type"] == "StorageError"
    assert "no space left" in done.error["message"]
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
    source, getter = cluster.agent("source", MOONCAKE_LEASE_TTL="600", **ports_of_its_own()), cluster.agent("getter")
    path = make_file(cluster.path("gone"), MIB)
    source.ok("register", path, "--name", "gone")
    source.kill()
    error = getter.fails(5, "get", "gone", cluster.path("gone-copy"))
    assert error["type"] in {"NoLivePeer", "PeerUnreachable"}
    assert " info gone" in error["advice"]
    shown = getter.run("info", "gone")
    assert shown.status == 0, shown
    assert "no holder sends the manifest" in shown.out
    assert [r["reachable"] for r in getter.ok("info", "gone")["replicas"]] == [False]
