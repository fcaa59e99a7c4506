"""Columns say what the entries said that they were made of, and cost what they promise."""

from __future__ import annotations

import gc
import json
import tracemalloc
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.objects.file_list import SLICE, FileEntry, FileList

DIGESTS = st.lists(st.binary(min_size=4, max_size=4), max_size=3).map(tuple)
ENTRIES = st.builds(FileEntry, st.text(min_size=1, max_size=9), st.integers(0, 1 << 46), st.integers(0, 0o777), DIGESTS)


@given(st.lists(ENTRIES, max_size=6))
def test_columns_are_a_sequence_of_the_entries(entries: list[FileEntry]) -> None:
    files = FileList.of(entries)
    assert files == entries
    assert files == FileList.of(files)
    assert hash(files) == hash(FileList.of(entries))
    assert list(files) == entries == list(files[:])
    assert [files[n] for n in range(-len(entries), 0)] == entries
    assert files[1:3] == tuple(entries[1:3])
    assert list(files.all_digests()) == [digest for entry in entries for digest in entry.chunks]
    with pytest.raises(IndexError):
        files[len(entries)]


def test_what_differs_is_not_equal() -> None:
    entry = FileEntry("a", 1, 0o644, (b"1234",))
    files = FileList.of([entry])
    for other in (
        FileEntry("b", 1, 0o644, (b"1234",)),
        FileEntry("a", 2, 0o644, (b"1234",)),
        FileEntry("a", 1, 0o600, (b"1234",)),
        FileEntry("a", 1, 0o644, (b"123x",)),
        FileEntry("a", 1, 0o644, ()),
    ):
        assert files != FileList.of([other])
        assert files != [other]
    assert files != [entry, entry]
    assert files != entry


@given(st.lists(ENTRIES, max_size=4))
def test_the_json_is_canonical(entries: list[FileEntry]) -> None:
    data = [{"path": e.path, "size": e.size, "mode": e.mode, "chunks": [c.hex() for c in e.chunks]} for e in entries]
    expected = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert b"".join(FileList.of(entries).json()) == expected


def test_the_json_of_many_comes_in_pieces() -> None:
    files = FileList.of(FileEntry(str(n), n, 0, ()) for n in range(2 * SLICE + 1))
    pieces = list(files.json())
    assert len(pieces) == 4
    assert [file["path"] for file in json.loads(b"".join(pieces))] == [str(n) for n in range(2 * SLICE + 1)]


def test_digests_are_of_one_length() -> None:
    with pytest.raises(ValueError, match="several lengths"):
        FileList.of([FileEntry("a", 1, 0, (b"1",)), FileEntry("b", 1, 0, (b"22",))])


def test_many_files_are_few_objects() -> None:
    count = 10_000
    paths = tuple(f"{n:05}" for n in range(count))
    gc.collect()
    before = len(gc.get_objects())
    tracemalloc.start()
    try:
        numbers = range(count)
        files = FileList(
            paths,
            array("Q", numbers),
            array("H", [0] * count),
            array("Q", range(count + 1)),
            b"".join(n.to_bytes(16, "little") for n in numbers),
            16,
        )
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(files) == count
    assert len(gc.get_objects()) - before < 100
    assert taken < 50 * count
