"""On a file system that can share blocks, copies of one host take no room, and are verified all the same.

An XFS in a file is mounted for it, which takes root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.files.stamps import FileStamp
from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan
from engine.net.rate import RateLimit
from engine.serving.segment_server import SegmentServer
from engine.transports.base import Channel
from engine.transports.limited import LimitedSink
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.objects.file_system import clone_range
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.file_sink import FileSink
from p2pstore.pull.reuse import copy_local
from tests.p2pstore.samples import MIB, content, large, manifest_of, record_of
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

SIZE = 24 * MIB + 12345
MANIFEST = manifest_of({"": content(SIZE)}, MIB)
IMAGE_BYTES = 512 * MIB
TIMEOUT = 60


def whole() -> bytes:
    return large(SIZE)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on an XFS of its own."""
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        pytest.skip("mounting an XFS takes root and mkfs.xfs (apt-get install xfsprogs)")
    base = tmp_path_factory.mktemp("xfs")
    image, point = base / "image", base / "mounted"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.xfs", "-q", image], check=True, timeout=TIMEOUT)
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, point], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    if mounted.returncode:
        pytest.skip(f"an XFS cannot be mounted here: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", point], check=True, timeout=TIMEOUT)


def written(path: Path, data: bytes | None = None) -> Path:
    with path.open("wb") as file:
        file.write(whole() if data is None else data)
        os.fsync(file.fileno())
    return path


def free(place: Path) -> int:
    os.sync()
    about = os.statvfs(place)
    return about.f_bfree * about.f_frsize


def sink_into(destination: FileDestination, run: range) -> FileSink:
    return destination.sink(run, memoryview(bytearray(100_000)))


def open_to(server: SegmentServer, source: Path) -> tuple[Channel, int]:
    """A local channel to a server of that file, and the file's address there."""
    spans = [FileSpan(str(source), SIZE, FileStamp.of(source.stat()))]
    address = server.register(FilesBuffer("object", spans))
    return server.transport("local").open(server.address_of_self()), address


def test_a_local_get_shares_the_blocks(xfs: Path) -> None:
    source, copy = written(xfs / "source"), xfs / "copy"
    with SegmentServer(local_socket=xfs / "sockets" / "s") as server:
        channel, address = open_to(server, source)
        before = free(xfs)
        destination = FileDestination(copy, MANIFEST, "n")
        for first, last in ((0, 9), (9, MANIFEST.chunks)):
            run = range(first, last)
            chunks = [MANIFEST.chunk(c) for c in run]
            sink = sink_into(destination, run)
            channel.submit(address + chunks[0].offset, sum(c.length for c in chunks))
            channel.receive(LimitedSink(sink, RateLimit(1)))  # no byte is moved, so it does not take for ever
            assert sink.kept == len(run)
            sink.close()
        destination.verified.update(range(MANIFEST.chunks))
        channel.close()
        destination.finish()
        destination.abort()
    assert copy.read_bytes() == whole()
    assert before - free(xfs) < SIZE // 4


def test_cloned_bytes_that_are_wrong_are_found(xfs: Path) -> None:
    wrong = bytearray(whole())
    wrong[3 * MIB + 5] ^= 1
    source = written(xfs / "wrong", bytes(wrong))
    destination = FileDestination(xfs / "never", MANIFEST, "n")
    sink = sink_into(destination, range(MANIFEST.chunks))
    with source.open("rb") as file:
        for number in range(3):
            assert sink.clone(file.fileno(), number * MIB, SIZE) == MIB
        with pytest.raises(Mismatch) as caught:
            sink.clone(file.fileno(), 3 * MIB, SIZE)
    assert caught.value.chunk == sink.kept == 3
    sink.close()
    destination.abort()


def test_the_copy_does_not_change_with_its_source(xfs: Path) -> None:
    source, target = written(xfs / "one"), xfs / "two"
    with source.open("r+b") as file, target.open("w+b") as copy:
        copy.truncate(SIZE)
        assert clone_range(file.fileno(), 0, SIZE, copy.fileno(), 0)
        file.write(b"other")
        file.flush()
        assert copy.read() == whole()


def test_chunks_that_are_here_are_shared(xfs: Path) -> None:
    source, copy = written(xfs / "older"), xfs / "newer"
    newer = manifest_of({"": whole()[: 20 * MIB] + content(MIB, 9)}, MIB)
    tree = scan(source)
    holding = Holding(record_of("n", MANIFEST), "gold", source, tree.files)
    before = free(xfs)
    with SegmentServer() as server, contextlib.closing(Catalog(Path(":memory:"))) as catalog:
        destination = FileDestination(copy, newer, "newer")
        asyncio.run(hold_and_copy(server, catalog, holding, destination))
    assert len(list(destination.verified)) == 20
    assert destination.clones
    assert before - free(xfs) < 5 * MIB
    destination.abort()
    assert destination.part.read_bytes()[: 20 * MIB] == whole()[: 20 * MIB]


def test_chunks_that_begin_inside_a_block_are_shared_but_for_their_ends(xfs: Path) -> None:
    shapes: Shapes = {f"layers.{n}": ("F32", (MIB // 4,)) for n in range(16)}
    data = file_of(shapes, {"step": "1"})
    source, copy = written(xfs / "tensors", data), xfs / "copy of tensors"
    tree = scan(source)
    manifest = hash_tree(tree, hash_name="xxh3_128", chunk_size=MIB)
    assert manifest.columns.origins[0] % 4096
    with SegmentServer(local_socket=xfs / "t" / "t") as server:
        channel, address = open_to(server, source)
        before = free(xfs)
        destination = FileDestination(copy, manifest, "n")
        sink = sink_into(destination, range(manifest.chunks))
        channel.submit(address, len(data))
        channel.receive(LimitedSink(sink, RateLimit(1 << 30)))
        assert sink.kept == manifest.chunks
        assert destination.clones
        sink.close()
        destination.verified.update(range(manifest.chunks))
        channel.close()
        destination.finish()
        destination.abort()
    assert copy.read_bytes() == data
    assert before - free(xfs) < 4 * MIB


def test_what_does_not_fall_on_blocks_is_copied(xfs: Path) -> None:
    source = written(xfs / "shifted", b"12345678" + whole())
    destination = FileDestination(xfs / "not shared", MANIFEST, "n")
    sink = sink_into(destination, range(MANIFEST.chunks))
    with source.open("rb") as file:
        assert sink.clone(file.fileno(), 8, SIZE) == 0
    assert destination.clones
    sink.close()
    destination.abort()


def test_a_source_that_cannot_be_read_is_no_fault_of_the_destinations(tmp_path: Path) -> None:
    shapes: Shapes = {f"layers.{n}": ("F32", (MIB // 4,)) for n in range(2)}
    source = written(tmp_path / "tensors", file_of(shapes))
    manifest = hash_tree(scan(source), hash_name="xxh3_128", chunk_size=MIB)
    assert manifest.chunk(0).length < 4096  # so that all of it is copied, not shared
    destination = FileDestination(tmp_path / "copy", manifest, "n")
    sink = sink_into(destination, range(manifest.chunks))
    with source.open("ab") as file:  # which cannot be read
        assert sink.clone(file.fileno(), 0, SIZE) == 0
    with source.open("rb") as file:
        assert sink.clone(file.fileno(), 0, SIZE) == manifest.chunk(0).length
    assert sink.kept == 1
    sink.close()
    destination.abort()


async def hold_and_copy(server: SegmentServer, catalog: Catalog, holding: Holding, target: FileDestination) -> None:
    holdings = Holdings(server, catalog)
    await holdings.add(holding, MANIFEST)
    copy_local(holdings, target, threading.Event(), lambda _: None)


def test_what_cannot_be_cloned_is_copied(xfs: Path, tmp_path: Path) -> None:
    source = written(xfs / "far")
    destination = FileDestination(tmp_path / "copy", MANIFEST, "n")
    sink = sink_into(destination, range(MANIFEST.chunks))
    with SegmentServer(local_socket=tmp_path / "s" / "s") as server:
        channel, address = open_to(server, source)
        channel.submit(address, SIZE)
        channel.receive(sink)
        channel.close()
    assert sink.kept == MANIFEST.chunks
    assert not destination.clones
    sink.close()
    destination.abort()
    assert destination.part.read_bytes() == whole()


def test_many_chunks_that_changed_are_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = written(tmp_path / "older")
    holding = Holding(record_of("n", MANIFEST), "gold", source, scan(source).files)
    source.write_bytes(bytes(SIZE))
    caplog.set_level("INFO", "p2pstore.pull.reuse")
    with SegmentServer() as server, contextlib.closing(Catalog(Path(":memory:"))) as catalog:
        destination = FileDestination(tmp_path / "newer", MANIFEST, "newer")
        asyncio.run(hold_and_copy(server, catalog, holding, destination))
    destination.abort()
    assert list(destination.verified) == []
    (line,) = [record.message for record in caplog.records if record.name == "p2pstore.pull.reuse"]
    assert line.startswith(f"{MANIFEST.chunks} chunks that were here are not reused: ")
