"""What a sink into files writes, and when: few writes, which begin and end at round places."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from engine.files.system import system
from p2pstore.errors import StorageError
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.pull.destinations import CHUNK, CONTENT, FILE, TREE, given_up, receive, whole
from tests.p2pstore.samples import read_tree

Written = list[tuple[int, int]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """(offset, length) of each write to a file at an offset."""
    found: Written = []

    def pwrite(descriptor: int, data: bytes | memoryview, at: int) -> int:
        found.append((at, len(data)))
        return os.pwrite(descriptor, data, at)

    monkeypatch.setattr(system, "pwrite", pwrite)
    return found


def test_what_comes_in_little_is_written_once_the_scratch_is_full(tmp_path: Path, written: Written) -> None:
    with given_up(FileDestination(tmp_path / "d", FILE, "n")) as destination:
        written.clear()
        assert receive(destination, range(2), whole(FILE)[: 2 * CHUNK], step=100, scratch=CHUNK // 2) == 2
        assert written == [(at, CHUNK // 2) for at in range(0, 2 * CHUNK, CHUNK // 2)]


def test_the_end_of_a_chunk_is_not_waited_with(tmp_path: Path, written: Written) -> None:
    with given_up(FileDestination(tmp_path / "d", FILE, "n")) as destination:
        written.clear()
        sink = destination.sink(range(2), memoryview(bytearray(8 * CHUNK)))
        data = whole(FILE)
        for done in range(0, CHUNK, CHUNK // 4):
            assert sink.kept == 0
            sink.buffer(2 * CHUNK - done)[: CHUNK // 4] = data[done : done + CHUNK // 4]
            sink.filled(CHUNK // 4)
        assert sink.kept == 1
        assert written == [(0, CHUNK)]
        sink.close()


def test_a_run_that_begins_anywhere_comes_to_round_places(tmp_path: Path, written: Written) -> None:
    with given_up(FileDestination(tmp_path / "d", FILE, "n")) as destination:
        written.clear()
        scratch = CHUNK * 2 - CHUNK // 2  # chunk 1 begins in the middle of such a piece
        assert receive(destination, range(1, 4), whole(FILE)[CHUNK : 4 * CHUNK], step=100, scratch=scratch) == 3
        ends = {at + length for at, length in written}
        assert {scratch, 2 * scratch} <= ends
        assert sum(length for _, length in written) == 3 * CHUNK


def test_wrong_bytes_are_found_at_the_end_of_their_chunk(tmp_path: Path) -> None:
    with given_up(FileDestination(tmp_path / "d", FILE, "n")) as destination:
        data = bytearray(whole(FILE)[: 3 * CHUNK])
        data[CHUNK + 5] ^= 1
        sink = destination.sink(range(3), memoryview(bytearray(CHUNK // 2)))
        fed = 0

        def feed_all() -> None:
            nonlocal fed
            while True:
                view = sink.buffer(len(data) - fed)
                count = min(len(view), 100)
                view[:count] = data[fed : fed + count]
                fed += count
                sink.filled(count)

        with pytest.raises(Mismatch) as caught:
            feed_all()
        assert caught.value.chunk == 1
        assert sink.kept == 1
        assert fed == 2 * CHUNK
        sink.close()


def test_bytes_in_a_devices_memory_follow_what_was_held(tmp_path: Path) -> None:
    with given_up(FileDestination(tmp_path / "d", FILE, "n")) as destination:
        data = whole(FILE)[:CHUNK]
        sink = destination.sink(range(1), memoryview(bytearray(CHUNK)))
        sink.buffer(CHUNK)[:10] = data[:10]
        sink.filled(10)
        assert sink.hole(CHUNK - 10) == 0
        assert sink.clone(0, 10, CHUNK - 10) == 0
        sink.take(memoryview(data)[10:])
        assert sink.kept == 1
        sink.close()


def test_a_full_disk_is_told_with_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with given_up(FileDestination(tmp_path / "d", FILE, "n")) as destination:

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(system, "pwrite", full)
        with pytest.raises(StorageError, match="no space left"):
            receive(destination, range(1), whole(FILE)[:CHUNK], step=100, scratch=CHUNK)


@pytest.mark.parametrize("seed", range(5))
def test_however_it_comes_the_files_are_right(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    destination = FileDestination(tmp_path / "d", TREE, "n")
    data, first = whole(TREE), 0
    while first < TREE.chunks:
        run = range(first, min(TREE.chunks, first + chance.randint(1, 3)))
        begin, last = TREE.chunk(run[0]), TREE.chunk(run[-1])
        piece = data[begin.offset : last.offset + last.length]
        step, scratch = chance.choice((1, 7, 1000, 5000)), chance.choice((3, 1000, CHUNK, 3 * CHUNK))
        assert receive(destination, run, piece, step, scratch) == len(run)
        destination.verified.update(run)
        destination.keep(run)
        first = run.stop
    destination.finish()
    assert read_tree(tmp_path / "d") == CONTENT[TREE.digest]
