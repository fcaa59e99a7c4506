"""A file that comes as a stream."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.files.stamps import FileStamp
from p2pstore.errors import StorageError
from p2pstore.holding.incoming import Incoming, begun
from tests.p2pstore.samples import KIB, content, manifest_of


@given(st.lists(st.integers(0, 3 * KIB), max_size=8))
def test_it_is_hashed_as_a_file_is(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    directory = tmp_path_factory.mktemp("kept")
    blocks = [content(length, seed) for seed, length in enumerate(lengths)]
    incoming = Incoming(directory, "models/x", "xxh3_128", KIB)
    for block in blocks:
        incoming.write(block)
    path, span, manifest = incoming.finish()
    assert path.read_bytes() == b"".join(blocks)
    assert [entry.chunks for entry in manifest.files] == [
        entry.chunks for entry in manifest_of({"": b"".join(blocks)}, KIB).files
    ]
    assert (span.size, span.stamp) == (sum(lengths), FileStamp.of(path.stat()))
    assert [each.name for each in directory.iterdir()] == [f"models%2Fx-{manifest.digest[:16]}"]


def test_what_does_not_come_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "kept", "n", "xxh3_128")
    incoming.write(b"x" * 100)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    incoming.abort()
    assert not list((tmp_path / "kept").iterdir())
    incoming = Incoming(tmp_path / "kept", "n", "xxh3_128")
    incoming.write(b"x")
    incoming.finish()
    incoming.abort()
    assert not list((tmp_path / "kept").iterdir())


def test_the_same_again_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    def came() -> tuple[Incoming, Path, FileStamp | None]:
        incoming = Incoming(tmp_path, "n", "xxh3_128")
        incoming.write(b"x")
        path, span, _ = incoming.finish()
        return incoming, path, span.stamp

    _, path, stamp = came()
    again, *found = came()
    assert found == [path, stamp]
    again.abort()
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(b"y")
    came()
    assert path.read_bytes() == b"x"


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        Incoming(tmp_path / "file", "n", "xxh3_128")


async def test_a_cancel_while_it_is_made_leaves_nothing(tmp_path: Path) -> None:
    go_on = threading.Event()

    def late(directory: Path) -> Incoming:
        assert go_on.wait(60)
        return Incoming(directory, "n", "xxh3_128")

    making = asyncio.create_task(begun(late, tmp_path))
    await asyncio.sleep(0)
    making.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(making, 60)
    assert os.listdir(tmp_path) == []
