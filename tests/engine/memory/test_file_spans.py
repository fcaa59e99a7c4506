"""Spans as columns say what spans say."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import pytest

from engine.files.stamps import STAMP_BYTES, FileStamp, pack_stamp
from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan, FileSpans

STAMPS = [FileStamp(1, 2, 3, 4), FileStamp((1 << 64) - 1, (1 << 64) - 1, 0, -5)]


def made(*, stamped: bool = True) -> FileSpans:
    stamps = b"".join(stamp.packed() for stamp in STAMPS) if stamped else b""
    return FileSpans("/root", ("a/b", "c"), array("Q", [3, 0]), stamps)


def test_spans_are_made_when_they_are_asked_for() -> None:
    expected = [FileSpan("/root/a/b", 3, STAMPS[0]), FileSpan("/root/c", 0, STAMPS[1])]
    spans = made()
    assert list(spans) == expected
    assert spans == expected
    assert spans == made()
    assert hash(spans) == hash(made())
    assert [spans[0], spans[-1]] == expected
    assert spans[1:] == (expected[1],)
    assert spans != expected[:1]
    assert [spans.stamp(n) for n in range(2)] == [stamp.packed() for stamp in STAMPS]
    with pytest.raises(IndexError):
        spans[2]


def test_without_stamps() -> None:
    assert list(made(stamped=False)) == [FileSpan("/root/a/b", 3), FileSpan("/root/c", 0)]


def test_one_file_is_the_root_itself() -> None:
    assert FileSpans("/root", ("",), array("Q", [1]))[0] == FileSpan("/root", 1)


def test_a_stamp_is_packed_and_back(tmp_path: Path) -> None:
    for time in (1_700_000_000_123_456_789, -1):
        path = tmp_path / "f"
        path.write_bytes(b"12")
        os.utime(path, ns=(time, time))
        stamp = FileStamp.of(path.stat())
        assert stamp.mtime_ns == time
        assert pack_stamp(path.stat()) == stamp.packed()
        assert len(stamp.packed()) == STAMP_BYTES
        assert FileStamp.unpack(stamp.packed()) == stamp
    assert [FileStamp(*numbers) for numbers in FileStamp.unpack_all(b"".join(s.packed() for s in STAMPS))] == STAMPS


def test_a_buffer_of_them_serves_and_refuses_as_one_of_spans(tmp_path: Path) -> None:
    for name, data in (("a", b"123"), ("b", b"45")):
        (tmp_path / name).write_bytes(data)
    stamps = b"".join(pack_stamp((tmp_path / name).stat()) for name in "ab")
    buffer = FilesBuffer("n", FileSpans(str(tmp_path), ("a", "b"), array("Q", [3, 2]), stamps))
    view = memoryview(bytearray(5))
    assert buffer.ready(0, 5)
    buffer.read_into(0, view)
    assert bytes(view) == b"12345"
    (tmp_path / "b").write_bytes(b"456")
    assert buffer.ready(0, 3)
    assert not buffer.ready(0, 5)
