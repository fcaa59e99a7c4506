"""Where files are cut into chunks, and which files tell it themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.objects import tree_hash
from p2pstore.objects.cutting import chunk_at, chunk_count, chunk_end, chunk_start, origin_of
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.samples import MIB, content, write_tree
from tests.p2pstore.tensors.checkpoints import Shapes, file_of, framed, header_of


@given(st.integers(1, 200), st.integers(1, 20), st.data())
def test_chunks_are_all_of_a_file(size: int, chunk_size: int, data: st.DataObject) -> None:
    origin = data.draw(st.integers(0, min(size, chunk_size) - 1))
    at = 0
    for number in range(chunk_count(size, chunk_size, origin)):
        start, end = chunk_start(number, chunk_size, origin), chunk_end(number, size, chunk_size, origin)
        assert start == at < end <= start + chunk_size
        assert all(chunk_at(byte, chunk_size, origin) == number for byte in range(start, end))
        assert number == 0 or (start - origin) % chunk_size == 0
        at = end
    assert at == size


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def origin(data: bytes, chunk_size: int = 64) -> int:
    return origin_of(reader(data), len(data), chunk_size)


TENSORS: Shapes = {"a": ("F32", (100,)), "b": ("U8", (3,)), "none": ("U8", (0,))}


def head(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def test_tensors_tell_where_they_begin() -> None:
    data = file_of(TENSORS, {"format": "pt"})
    assert head(data) > 64
    assert origin(data) == head(data) % 64 > 0
    assert origin(data, 256) == head(data)
    assert origin(data, len(data)) == 0
    assert origin(file_of(TENSORS, pad=8)) == head(file_of(TENSORS, pad=8)) % 64


def test_types_and_shapes_that_are_not_known_yet_do_not_count() -> None:
    entries = {"a": {"dtype": "F1", "shape": "?", "data_offsets": [0, 100]}, "__metadata__": 7}
    data = framed(json.dumps(entries).encode(), bytes(100))
    assert origin(data) == head(data) % 64


def entries_of(**offsets: object) -> bytes:
    return json.dumps({name: {"data_offsets": each} for name, each in offsets.items()}).encode()


@pytest.mark.parametrize(
    "data",
    [
        content(200),
        b"{" + bytes(199),
        (100).to_bytes(8, "little") + bytes(192),
        (100).to_bytes(8, "little") + b"{" + bytes(191),
        (1 << 63).to_bytes(8, "little") + b"{}" + bytes(191),
        framed(b"{}", bytes(100)),
        framed(b" " + entries_of(a=[0, 100]), bytes(100)),
        framed(entries_of(a=[0, 99]), bytes(100)),
        framed(entries_of(a=[1, 100]), bytes(100)),
        framed(entries_of(a=[0, 60], b=[50, 100]), bytes(100)),
        framed(entries_of(a=[0, 40], b=[50, 100]), bytes(100)),
        framed(entries_of(a=[0, 200], b=[200, 100]), bytes(100)),
        framed(entries_of(a=[0, 100.0]), bytes(100)),
        framed(entries_of(a=[False, 100]), bytes(100)),
        framed(entries_of(a=[0, 50, 100]), bytes(100)),
        framed(entries_of(a="0, 100"), bytes(100)),
        framed(b'{"a":[0,100]}', bytes(100)),
        framed(b'{"a":{"data_offsets":[0,100]},"\xff":{}}', bytes(100)),
        framed(b"{" + b'"a":[' * 100_000, bytes(100)),
        framed(b'{"a":{"data_offsets":[0,0]}}' + b" " * 200),
    ],
)
def test_what_is_no_safetensors_file_is_cut_from_its_beginning(data: bytes) -> None:
    assert origin(data) == 0


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda b: framed(b, bytes(100))))
def test_any_bytes_have_an_origin_inside_their_first_chunk(data: bytes) -> None:
    assert 0 <= origin(data) < max(1, min(64, len(data)))


def test_a_header_that_ends_with_a_chunk_has_none() -> None:
    text = json.dumps(header_of({"a": ("U8", (200,))})).encode().ljust(120)
    data = framed(text, bytes(200))
    assert head(data) == 128
    assert origin(data) == 0


def test_a_longer_header_moves_no_chunk_but_the_first(tmp_path: Path) -> None:
    shapes: Shapes = {f"layers.{n}": ("F32", (MIB // 8,)) for n in range(9)}
    write_tree(tmp_path / "old", {"m": file_of(shapes, {"step": "1"})})
    write_tree(tmp_path / "new", {"m": file_of(shapes, {"step": "1", "more": "8"})})
    old, new = (hash_tree(scan(tmp_path / each), hash_name="xxh3_128", chunk_size=MIB) for each in ("old", "new"))
    assert new.columns.sizes[0] > old.columns.sizes[0]
    assert new.format == "mooncake.manifest.v2"
    before, after = ([(chunk.length, chunk.digest) for chunk in each.all_chunks()] for each in (old, new))
    assert len(before) == len(after) == 6
    assert before[1:] == after[1:]
    assert before[0] != after[0]


def test_other_objects_are_what_they_were(tmp_path: Path) -> None:
    """The digest was computed by the release before there were origins."""
    write_tree(tmp_path / "t", {"plain.bin": content(3 * MIB + 1), "small": b"x"})
    for path in (tmp_path / "t").iterdir():
        path.chmod(0o644)
    found = hash_tree(scan(tmp_path / "t"), hash_name="xxh3_128", chunk_size=MIB)
    assert found.digest == "fd68b28985326ee0ff59d92b854c1b176f500855096d19ffe774d455c20a604b"


def test_small_files_are_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: Shapes = {"a": ("U8", (1000,))}
    write_tree(tmp_path / "t", {f"{n}.safetensors": file_of(shapes) for n in range(10)})
    monkeypatch.setattr(tree_hash, "file_origin", None)
    assert hash_tree(scan(tmp_path / "t"), hash_name="xxh3_128").format == "mooncake.manifest.v1"
