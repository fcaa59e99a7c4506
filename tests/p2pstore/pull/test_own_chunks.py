"""Zeros are neither moved nor stored, equal chunks are moved once; what lies there in the end is right all the same."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.repeats import repeats_of
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.get import GetRequest, GetResult
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.own_chunks import copy_repeats, fill_zeros
from tests.p2pstore.samples import KIB, MIB, content, manifest_of, read_tree, write_tree
from tests.refusing import RefusingFileSystem

CHUNK = 64 * KIB
ONE, TWO, ZERO = content(CHUNK, 1), content(CHUNK, 2), bytes(CHUNK)
FILES = {"a": ONE + ZERO + ONE + ZERO * 2, "b": ONE, "c": ZERO, "d": TWO + bytes(CHUNK // 2)}
MANIFEST = manifest_of(FILES, CHUNK)


def nothing(count: int) -> None:
    pass


def fill(destination: FileDestination | MemoryDestination, manifest: Manifest) -> None:
    repeats = repeats_of(manifest)
    fill_zeros(destination, repeats, threading.Event(), nothing)
    copy_repeats(destination, repeats, threading.Event(), nothing)


def bring(destination: FileDestination | MemoryDestination, manifest: Manifest, files: dict[str, bytes]) -> list[int]:
    """What is missing, by its numbers, as if it came from a peer."""
    data = b"".join(files[path] for path in sorted(files))
    planned = repeats_of(manifest).planned(destination.verified)
    numbers = list(planned.missing())
    for number in numbers:
        chunk = manifest.chunk(number)
        sink = destination.sink(range(number, number + 1), memoryview(bytearray(CHUNK)))
        view = sink.buffer(chunk.length)
        view[:] = data[chunk.offset : chunk.offset + chunk.length]
        sink.filled(chunk.length)
        sink.close()
        destination.keep(range(number, number + 1))
        destination.verified.add(number)
    return numbers


def stored(path: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in [path, *path.rglob("*")] if p.is_file())


@pytest.fixture
def holes(tmp_path: Path) -> None:
    """Skips where the file system has none."""
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(MIB)
    if path.stat().st_blocks:
        pytest.skip("the file system of the temporary directory has no holes")


def test_a_fresh_copy_has_holes(tmp_path: Path, holes: None) -> None:
    destination = FileDestination(tmp_path / "copy", MANIFEST, "n")
    fill(destination, MANIFEST)
    assert sorted(destination.verified) == repeats_of(MANIFEST).zeros
    brought = bring(destination, MANIFEST, FILES)
    assert brought == [0, 7, 8], "the small end of zeros goes along"
    fill(destination, MANIFEST)
    assert destination.verified.full
    destination.finish()
    assert read_tree(tmp_path / "copy") == FILES
    assert stored(tmp_path / "copy") <= 5 * CHUNK


@pytest.mark.parametrize("number", [0, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
def test_old_bytes_are_gone_where_zeros_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A partial form holds whatever somebody wrote there before."""
    remote = RefusingFileSystem(tmp_path, monkeypatch)
    if number:
        remote.refuses("punch", number)
    first = FileDestination(tmp_path / "copy", MANIFEST, "n")
    bring(first, MANIFEST, FILES)
    for index, file in enumerate(MANIFEST.files):
        path = first.file_path(index)
        with path.open("r+b") as stream:
            stream.write(b"\xff" * file.size)
    assert first.abort()
    second = FileDestination(tmp_path / "copy", MANIFEST, "n")
    second.recheck(threading.Event())
    fill(second, MANIFEST)
    bring(second, MANIFEST, FILES)
    fill(second, MANIFEST)
    second.finish()
    assert read_tree(tmp_path / "copy") == FILES


@pytest.mark.parametrize("refused", ["punch", "ftruncate", "clone"])
def test_file_systems_without_holes_get_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    RefusingFileSystem(tmp_path, monkeypatch).refuses(refused, errno.EOPNOTSUPP)
    destination = FileDestination(tmp_path / "copy", MANIFEST, "n")
    fill(destination, MANIFEST)
    bring(destination, MANIFEST, FILES)
    fill(destination, MANIFEST)
    destination.finish()
    assert read_tree(tmp_path / "copy") == FILES


def test_a_resumed_get_copies_what_repeats_what_it_has(tmp_path: Path) -> None:
    first = FileDestination(tmp_path / "copy", MANIFEST, "n")
    bring(first, MANIFEST, FILES)
    assert first.abort()
    second = FileDestination(tmp_path / "copy", MANIFEST, "n")
    second.recheck(threading.Event())
    fill(second, MANIFEST)
    assert second.verified.full
    second.finish()
    assert read_tree(tmp_path / "copy") == FILES


def test_what_was_changed_meanwhile_is_not_copied(tmp_path: Path) -> None:
    destination = FileDestination(tmp_path / "copy", MANIFEST, "n")
    bring(destination, MANIFEST, FILES)
    with destination.file_path(0).open("r+b") as stream:
        stream.write(b"\xff" * 10)
    repeats = repeats_of(MANIFEST)
    assert copy_repeats(destination, repeats, threading.Event(), nothing) == 0
    assert not set(repeats.firsts) & set(destination.verified)
    destination.abort()


def test_a_disk_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from p2pstore.errors import StorageError

    remote = RefusingFileSystem(tmp_path, monkeypatch)
    destination = FileDestination(tmp_path / "copy", MANIFEST, "n")
    remote.refuses("punch", errno.EIO)
    with pytest.raises(StorageError, match="input/output error"):
        fill_zeros(destination, repeats_of(MANIFEST), threading.Event(), nothing)
    destination.abort()


def test_room_is_asked_for_what_is_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from p2pstore.errors import StorageError

    manifest = manifest_of({"": ONE + ZERO * 100}, CHUNK)
    remote = RefusingFileSystem(tmp_path, monkeypatch)
    remote.answers("statvfs", lambda real, path: SimpleNamespace(f_blocks=9, f_bavail=1, f_frsize=CHUNK))
    FileDestination(tmp_path / "copy", manifest, "n").abort()
    remote.answers("statvfs", lambda real, path: SimpleNamespace(f_blocks=9, f_bavail=1, f_frsize=CHUNK - 1))
    with pytest.raises(StorageError, match=f"no space left: {CHUNK} bytes are needed"):
        FileDestination(tmp_path / "other", manifest, "n")


def test_memory() -> None:
    buffers = {path: bytearray(b"\xff" * len(data)) for path, data in FILES.items()}
    destination = MemoryDestination(MANIFEST, buffers)
    fill(destination, MANIFEST)
    assert bring(destination, MANIFEST, FILES) == [0, 7, 8]
    fill(destination, MANIFEST)
    assert destination.verified.full
    destination.finish()
    assert {path: bytes(buffer) for path, buffer in buffers.items()} == FILES


# Whole gets, between nodes

LARGE = {"a": content(3 * MIB, 1) + bytes(5 * MIB), "b": content(3 * MIB, 1), "c": bytes(2 * MIB), "d": content(MIB, 4)}


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    server = MemoryServer()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("holder", "getter", "third"):
            node = await Node.start(NodeOptions(name, local_socket=tmp_path / name / "s"), MemoryStore(server))
            stack.push_async_callback(node.close)
            made.append(node)
        write_tree(tmp_path / "source", LARGE)
        await made[0].register(tmp_path / "source", "n", hash_name="xxh3_128", chunk_size=MIB)
        yield made


async def got(node: Node, dest: Path, transport: str = "auto", **how: bool) -> GetResult:
    return await node.get(GetRequest("n", dest, transport=transport, **how), lambda event: None)


@pytest.mark.parametrize("transport", ["tcp", "local"])
async def test_a_get_moves_what_is_not_there(tmp_path: Path, nodes: list[Node], transport: str, holes: None) -> None:
    result = await got(nodes[1], tmp_path / "copy", transport)
    assert read_tree(tmp_path / "copy") == LARGE
    assert result.bytes_pulled == 4 * MIB
    assert result.bytes_reused == 10 * MIB
    assert sum(result.peers.values()) == 4 * MIB
    assert stored(tmp_path / "copy") <= 8 * MIB
    again = await got(nodes[2], tmp_path / "again", transport)
    assert read_tree(tmp_path / "again") == LARGE
    assert again.bytes_pulled == 4 * MIB


async def test_a_dry_run_says_so(tmp_path: Path, nodes: list[Node]) -> None:
    result = await got(nodes[1], tmp_path / "copy", dry_run=True)
    assert (result.bytes_pulled, result.bytes_reused) == (4 * MIB, 10 * MIB)


async def test_a_getter_serves_only_what_it_has(
    tmp_path: Path, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is planned to be copied is not said to be there: a third node that gets meanwhile is sent no wrong byte."""
    results = await asyncio.gather(got(nodes[1], tmp_path / "one", "tcp"), got(nodes[2], tmp_path / "two", "tcp"))
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two") == LARGE
    assert [result.bytes_pulled for result in results] == [4 * MIB, 4 * MIB]


async def test_what_cannot_be_copied_is_pulled(
    tmp_path: Path, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2pstore.errors import SourceChanged

    def gone(*_: object) -> None:
        raise SourceChanged(path="x", detail="it is gone")

    monkeypatch.setattr(FileDestination, "copy", gone)
    result = await got(nodes[1], tmp_path / "copy", "tcp")
    assert read_tree(tmp_path / "copy") == LARGE
    assert result.bytes_pulled == 7 * MIB


async def test_into_memory(nodes: list[Node]) -> None:
    buffers = {path: bytearray(os.urandom(len(data))) for path, data in LARGE.items()}
    result = await nodes[1].get_into("n", buffers)
    assert {path: bytes(buffer) for path, buffer in buffers.items()} == LARGE
    assert result["bytes_pulled"] == 4 * MIB
