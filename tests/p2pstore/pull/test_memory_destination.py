"""A get into memory fits exactly, and says so where it does not."""

from __future__ import annotations

import array

import numpy as np
import pytest

from engine.memory.lent import byte_view
from p2pstore.errors import UsageError
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.memory_destination import MemoryDestination
from tests.p2pstore.pull.destinations import receive
from tests.p2pstore.samples import content, manifest_of

FILES = {"a": content(100), "empty": b"", "w": content(48, 2)}
MANIFEST = manifest_of(FILES, 32)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_into_anything_with_a_buffer(step: int) -> None:
    room = {"a": bytearray(100), "empty": bytearray(), "w": np.zeros((2, 6), dtype=np.float32)}
    destination = MemoryDestination(MANIFEST, room)
    assert receive(destination, range(MANIFEST.chunks), b"".join(FILES.values()), step) == MANIFEST.chunks
    assert room["a"] == FILES["a"]
    assert room["w"].tobytes() == FILES["w"]
    destination.keep(range(MANIFEST.chunks))


def test_a_single_buffer() -> None:
    room = array.array("i", [0] * 25)
    manifest = manifest_of({"": content(100)}, 32)
    destination = MemoryDestination(manifest, {"": room})
    receive(destination, range(4), content(100))
    assert room.tobytes() == content(100)


def test_only_some_chunks() -> None:
    room = {path: bytearray(len(data)) for path, data in FILES.items()}
    destination = MemoryDestination(MANIFEST, room)
    assert receive(destination, range(1, 3), FILES["a"][32:96]) == 2
    assert room["a"] == bytes(32) + FILES["a"][32:96] + bytes(4)


def test_wrong_bytes() -> None:
    room = {path: bytearray(len(data)) for path, data in FILES.items()}
    destination = MemoryDestination(MANIFEST, room)
    sink = destination.sink(range(2), memoryview(bytearray(1)))
    for data in (FILES["a"][:32], bytes(32)):
        sink.buffer(32)[:] = data
        if data == bytes(32):
            with pytest.raises(Mismatch) as caught:
                sink.filled(32)
        else:
            sink.filled(32)
    assert caught.value.chunk == 1
    assert sink.kept == 1
    sink.close()


@pytest.mark.parametrize(
    ("buffers", "words"),
    [
        ({}, "do not match"),
        ({"a": bytearray(100), "empty": bytearray()}, "do not match the object's files: 'w'"),
        ({"a": bytearray(100), "empty": bytearray(), "w": bytearray(48), "x": b""}, "do not match"),
        ({"a": bytearray(99), "empty": bytearray(), "w": bytearray(48)}, "99 bytes, the object has 100"),
        ({"a": bytearray(101), "empty": bytearray(), "w": bytearray(48)}, "101 bytes"),
        ({"a": bytes(100), "empty": bytearray(), "w": bytearray(48)}, "read-only"),
        ({"a": bytearray(100), "empty": bytearray(), "w": np.zeros(24, np.uint8)[::2]}, "contiguous|bytes"),
        ({"a": bytearray(100), "empty": bytearray(), "w": np.zeros((8, 12), np.uint8)[:, :6]}, "contiguous"),
        ({"a": "x" * 100, "empty": bytearray(), "w": bytearray(48)}, "of type str"),
    ],
    ids=range(9),
)
def test_buffers_that_do_not_fit(buffers: dict[str, bytearray], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        MemoryDestination(MANIFEST, buffers)


@pytest.mark.parametrize("empty", [b"", bytearray(), np.zeros(0), np.zeros((3, 0)), array.array("d")], ids=range(5))
def test_an_empty_buffer_of_any_shape_has_no_bytes(empty: bytes) -> None:
    assert len(byte_view(empty, "it")) == 0


def test_byte_view_sees_the_bytes() -> None:
    data = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert byte_view(data, "it") == data.tobytes()
    assert byte_view(data.T, "it") == data.tobytes(), "as they lie in memory"
    with pytest.raises(UsageError, match="it is not contiguous in memory"):
        byte_view(data[:, ::2], "it")
