"""Names of files by content: found out once, remembered over a restart, and never of wrong bytes."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from p2pstore.holding import oids as module
from p2pstore.holding.oids import Oids
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.oid import GIT, SHA256, git_oid
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.samples import MIB, content, write_tree

FILES = {"a": b"{}", "big": content(3 * MIB + 5), "empty": b""}
BYTES = b"".join(FILES[path] for path in sorted(FILES))


class Object:
    """An object in memory, and how often it was read."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.data = bytearray(BYTES)
        self.reads = 0
        self.here = True

    def read(self, digest: str, offset: int, view: memoryview) -> bool:
        assert digest == self.manifest.digest
        self.reads += 1
        view[:] = self.data[offset : offset + len(view)]
        return self.here


@pytest.fixture
def thing(tmp_path: Path) -> Object:
    write_tree(tmp_path / "tree", FILES)
    return Object(hash_tree(scan(tmp_path / "tree"), hash_name="xxh3_128").prepare())


def number(thing: Object, path: str) -> int:
    return list(thing.manifest.columns.paths).index(path)


@pytest.mark.parametrize("path", FILES)
async def test_both_ways(thing: Object, path: str) -> None:
    oids = Oids(thing.read, None)
    assert await oids.of(thing.manifest, number(thing, path), GIT) == git_oid(FILES[path])
    assert await oids.of(thing.manifest, number(thing, path), SHA256) == hashlib.sha256(FILES[path]).hexdigest()


async def test_a_file_is_read_once_however_many_ask_and_not_after_a_restart(thing: Object, tmp_path: Path) -> None:
    oids, big = Oids(thing.read, tmp_path / "oids"), number(thing, "big")
    found = await asyncio.gather(*(oids.of(thing.manifest, big, SHA256) for _ in range(5)))
    once = thing.reads
    assert len(set(found)) == 1
    assert once <= 2 * thing.manifest.chunks + 4
    again = Oids(thing.read, tmp_path / "oids")
    assert await again.of(thing.manifest, big, SHA256) == found[0]
    assert thing.reads == once


async def test_a_line_that_was_cut_short_is_none(thing: Object, tmp_path: Path) -> None:
    big = number(thing, "big")
    found = await Oids(thing.read, tmp_path).of(thing.manifest, big, SHA256)
    file = tmp_path / thing.manifest.digest
    file.write_text(file.read_text()[:-1] + f"\n{big} nonsense 00\nx")
    assert await Oids(thing.read, tmp_path).known(thing.manifest.digest) == {}
    assert await Oids(thing.read, tmp_path).of(thing.manifest, big, SHA256) == found
    assert await Oids(thing.read, tmp_path).known(thing.manifest.digest) == {(big, SHA256): found}


async def test_wrong_bytes_get_no_name(thing: Object, tmp_path: Path) -> None:
    thing.data[100] ^= 1
    oids = Oids(thing.read, tmp_path)
    assert await oids.of(thing.manifest, number(thing, "big"), SHA256) == ""
    assert await oids.known(thing.manifest.digest) == {}


async def test_nor_does_what_is_not_here(thing: Object) -> None:
    thing.here = False
    oids = Oids(thing.read, None)
    assert await oids.of(thing.manifest, number(thing, "big"), SHA256) == ""
    await oids.learn(thing.manifest.digest, number(thing, "big"), SHA256, "f" * 64)
    assert await oids.of(thing.manifest, number(thing, "big"), SHA256) == "f" * 64


async def test_a_directory_that_cannot_be_written_costs_the_memory_of_it_alone(thing: Object, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    oids = Oids(thing.read, tmp_path / "file" / "oids")
    assert await oids.of(thing.manifest, number(thing, "a"), GIT) == git_oid(b"{}")


async def test_few_objects_stay_in_memory(thing: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OBJECTS", 2)
    oids = Oids(thing.read, tmp_path)
    for digest in ("1" * 64, "2" * 64, "3" * 64):
        await oids.learn(digest, 0, GIT, "a" * 40)
    assert len(oids._known) == 2
    assert await oids.known("1" * 64) == {(0, GIT): "a" * 40}


async def test_it_ends_with_the_node(thing: Object) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(digest: str, offset: int, view: memoryview) -> bool:
        loop.call_soon_threadsafe(began.set)
        return thing.read(digest, offset, view)

    oids = Oids(slow, None)
    asking = asyncio.create_task(oids.of(thing.manifest, number(thing, "big"), SHA256))
    await began.wait()
    await oids.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
