"""Register, get, serve, verify and resume on file systems that are real: what the kernel has, and some in user space.

Needs root, to mount. What cannot be mounted here is skipped, and says why.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.files.refusals import said
from engine.files.stamps import _remembered
from p2pstore.errors import StorageError
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.get import GetRequest
from tests.p2pstore.samples import MIB, content, manifest_of, read_tree, write_tree

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "a": content(2 * MIB + 7, 1),
    "sub/b": content(2 * MIB, 2) + bytes(3 * MIB),
    "sub/c": content(MIB, 3),
    "e": b"",
}
DISKS = {"ext4": ("-q", "-F"), "xfs": ("-q", "-f"), "btrfs": ("-q", "-f"), "vfat": ("-F", "32")}
"""Programs and options that make them."""

FUSE = {
    "plain": (),
    "unstable inodes": ("ino",),
    "direct io": ("direct",),
    "locks refused": ("nolock",),
    "whole seconds": ("seconds",),
    "zeros": ("noroom", "noblocks"),
    "refuses all": ("nolock", "nosync", "nochmod", "nosocket", "direct", "noroom", "noblocks", "seconds"),
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TRIED ON REAL FILE SYSTEMS: root alone can mount")

PROBE_SECONDS = 60.0
"""For a file system in user space to be there."""


@contextlib.contextmanager
def mounted(place: Path, *command: str) -> Iterator[Path]:
    done = subprocess.run(["mount", *command, str(place)], check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"NOT TRIED: mount {' '.join(command)}: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, timeout=60)


@contextlib.contextmanager
def disk(kind: str, place: Path, image: Path) -> Iterator[Path]:
    program = shutil.which(f"mkfs.{kind}", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"NOT TRIED ON {kind}: there is no mkfs.{kind} here")
    with image.open("wb") as stream:
        stream.truncate(400 * MIB)
    subprocess.run([program, *DISKS[kind], str(image)], check=True, capture_output=True, timeout=60)
    with mounted(place, "-o", "loop", str(image)):
        yield place


@contextlib.contextmanager
def in_user_space(modes: tuple[str, ...], place: Path, behind: Path) -> Iterator[Path]:
    if importlib.util.find_spec("mfusepy") is None:
        pytest.skip("NOT TRIED ON FUSE: the package mfusepy is missing")
    behind.mkdir()
    command = [sys.executable, str(ROOT / "tests" / "fuse_passthrough.py"), str(behind), str(place), *modes]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + PROBE_SECONDS
        while not os.path.ismount(place):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.skip(f"NOT TRIED ON FUSE: {process.stdout.read()}")
            time.sleep(0.05)
        yield place
    finally:
        if os.path.ismount(place):
            subprocess.run(["umount", "-l", str(place)], check=False, timeout=60)
        process.kill()
        process.wait(60)
        process.stdout.close()


KINDS = [*DISKS, "tmpfs", "overlay", *(f"fuse: {name}" for name in FUSE)]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    kind = str(request.param)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    said.clear()
    _remembered.clear()  # one mount after the other has the same device number
    if kind in DISKS:
        with disk(kind, mountpoint, tmp_path / "image") as found:
            yield found
    elif kind == "tmpfs":
        with mounted(mountpoint, "-t", "tmpfs", "tmpfs") as found:
            yield found
    elif kind == "overlay":
        with mounted(tmp_path, "-t", "tmpfs", "tmpfs"):  # an upper layer cannot lie on every file system
            for name in ("lower", "upper", "work", "mnt"):
                (tmp_path / name).mkdir()
            layers = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
            with mounted(mountpoint, "-t", "overlay", "overlay", "-o", layers) as found:
                yield found
    else:
        with in_user_space(FUSE[kind.removeprefix("fuse: ")], mountpoint, tmp_path / "behind") as found:
            yield found


async def node(server: MemoryServer, name: str, state: Path) -> Node:
    state.mkdir()  # noqa: ASYNC240 - nobody waits
    return await Node.start(NodeOptions(name, state=state), MemoryStore(server))


async def test_the_whole_job(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes' own state lies there, too."""
    server = MemoryServer()
    write_tree(place / "source", FILES)
    holder = await node(server, "holder", place / "one")
    getter = await node(server, "getter", place / "two")
    try:
        await holder.register(place / "source", "n", hash_name="xxh3_128", chunk_size=MIB)
        await holder.register(place / "source" / "a", "a", hash_name="xxh3_128", chunk_size=MIB)
        for transport in ("tcp", "auto"):
            request = GetRequest("n", place / f"copy-{transport}", transport=transport)
            await getter.get(request, lambda event: None)
            assert read_tree(place / f"copy-{transport}") == FILES
        await getter.get(GetRequest("a", place / "file", transport="tcp"), lambda event: None)
        assert (place / "file").read_bytes() == FILES["a"]
        for one in (holder, getter):
            assert (await one.verify("n", lambda done, total: None))["ok"]
        await holder.parts.watcher.look()
        await getter.parts.watcher.look()
        assert [len(holder.parts.holdings), len(getter.parts.holdings)] == [2, 3], "nothing that stayed is withdrawn"
        left = set(os.listdir(place)) - {"lost+found"}
        assert left == {"source", "one", "two", "copy-tcp", "copy-auto", "file"}
    finally:
        await getter.close()
        await holder.close()
    again = await Node.start(NodeOptions("holder", state=place / "one"), MemoryStore(server))
    try:
        assert len(again.parts.holdings) == 2, "its catalog is there after a restart"
    finally:
        await again.close()


def test_a_get_that_was_broken_off_goes_on(place: Path) -> None:
    manifest = manifest_of({"": FILES["sub/b"]}, MIB)
    first = FileDestination(place / "copy", manifest, "n")
    chunk = manifest.chunk(0)
    sink = first.sink(range(1), memoryview(bytearray(MIB)))
    sink.buffer(MIB)[:] = FILES["sub/b"][: chunk.length]
    sink.filled(chunk.length)
    sink.close()
    first.keep(range(1))
    assert first.abort()
    second = FileDestination(place / "copy", manifest, "n")
    second.recheck(threading.Event())
    assert list(second.verified) == [0]
    second.abort()


async def test_memory_that_is_a_file_system_is_served(tmp_path: Path) -> None:
    """hugetlbfs has no write(2): it is read, and nothing can be brought there, which is told as what it is."""
    place = tmp_path / "huge"
    place.mkdir()
    server = MemoryServer()
    with mounted(place, "-t", "hugetlbfs", "none"):
        with (place / "w").open("wb") as stream:
            stream.truncate(4 * MIB)
        holder = await Node.start(NodeOptions("holder"), MemoryStore(server))
        getter = await Node.start(NodeOptions("getter"), MemoryStore(server))
        try:
            await holder.register(place / "w", "w", hash_name="xxh3_128", chunk_size=MIB)
            (tmp_path / "x").write_bytes(content(MIB))
            await holder.register(tmp_path / "x", "x", hash_name="xxh3_128", chunk_size=MIB)
            await getter.get(GetRequest("w", tmp_path / "copy"), lambda event: None)
            assert (tmp_path / "copy").read_bytes() == bytes(4 * MIB)
            with pytest.raises(StorageError):
                await getter.get(GetRequest("x", place / "y"), lambda event: None)
        finally:
            await getter.close()
            await holder.close()
