"""Memory has the same identity as a file with the same bytes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from p2pstore.errors import Interrupted, UsageError
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.manifest_reader import parse
from p2pstore.objects.memory_objects import hash_views, named, views_of
from tests.p2pstore.samples import MIB, content, manifest_of


def hashed(buffers: object, *, chunk_size: int = 0, cancelled: threading.Event | None = None) -> Manifest:
    views = views_of(named(buffers))  # type: ignore[arg-type]
    return hash_views(
        views,
        kind="file" if set(views) == {""} else "directory",
        hash_name="xxh3_128",
        chunk_size=chunk_size,
        threads=2,
        cancelled=cancelled or threading.Event(),
    )


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda d: np.frombuffer(d, np.uint8)], ids=range(4))
def test_one_buffer(make: object) -> None:
    data = content(2 * MIB + 4)
    assert hashed(make(data)) == manifest_of({"": data})  # type: ignore[operator]


def test_named_buffers() -> None:
    files = {"w/1": content(MIB + 8), "b": content(16, 2), "empty": b""}
    found = hashed({**files, "w/1": np.frombuffer(files["w/1"], np.float64)}, chunk_size=MIB)
    assert found == manifest_of(files)
    assert parse(found.to_bytes(), peer="p") == found


def test_arrays_of_any_shape() -> None:
    array = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    assert hashed(array) == manifest_of({"": array.tobytes()})
    assert hashed(np.zeros((0, 7))) == manifest_of({"": b""})
    assert hashed(b"").size == 0


@pytest.mark.parametrize("path", ["", "/x", "../x", "a//b", "a\0b", "x" * 256, "."])
def test_bad_paths(path: str) -> None:
    with pytest.raises(UsageError):
        named({path: b"x"})


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "a"], ["x", "x/y/z"], [0], [None]])
def test_names_that_make_no_tree(names: list[object]) -> None:
    with pytest.raises(UsageError):
        named(dict.fromkeys(names, b"x"))  # type: ignore[misc]


@pytest.mark.parametrize("bad", ["text", 7, None, np.zeros((4, 4))[:, ::2], [b"x"], np.zeros((4, 4))[::-1]])
def test_what_is_no_contiguous_buffer(bad: object) -> None:
    with pytest.raises(UsageError):
        views_of(named(bad))  # type: ignore[arg-type]


def test_chunk_sizes_and_cancelling() -> None:
    with pytest.raises(UsageError):
        hashed(b"x", chunk_size=3)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        hashed(content(MIB), cancelled=stop)
