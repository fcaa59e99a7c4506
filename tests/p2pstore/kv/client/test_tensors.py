"""Tensors in upstream's form: what is kept of them, what is refused, and what is no tensor."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from p2pstore.kv.client import tensors
from p2pstore.kv.client.tensors import HEADER_BYTES, SIZES, TYPES, TensorHeader, as_numpy, as_torch, described


def there_and_back(tensor: Any) -> Any:
    header = TensorHeader.of(tensor)
    return as_numpy(*described("k", header.pack() + tensor.tobytes()))


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_comes_back(kind: str) -> None:
    try:
        numbers = np.dtype(kind)
    except TypeError:
        numbers = np.dtype(getattr(pytest.importorskip("ml_dtypes"), kind))
    assert numbers.itemsize == SIZES[TYPES.index(kind)]
    tensor = np.arange(6).astype(numbers).reshape(3, 1, 2)
    found = there_and_back(tensor)
    assert (found.dtype, found.shape, found.tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (1, 2, 3, 1, 2, 1, 1, 2)])
def test_every_shape_comes_back(shape: tuple[int, ...]) -> None:
    assert there_and_back(np.ones(shape, dtype=np.int16)).shape == shape


def test_the_header_is_upstreams() -> None:
    header = TensorHeader("bfloat16", (3, 4)).pack()
    assert len(header) == HEADER_BYTES == 304
    assert struct.unpack_from("<IHHiiIIQQ", header) == (0x4D4F4F4E, 1, 304, 12, 2, 0, 0, 304, 24)
    assert struct.unpack_from("<16q", header, 40) == (3, 4, *[-1] * 6) * 2
    assert not any(header[40 + 128 :])


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (b"bytes", "a bytes is no tensor"),
        (np.zeros(3, dtype="U5"), "an array of <U5"),
        (np.zeros(3, dtype=np.complex64), "an array of complex64"),
        (np.zeros((1,) * 9), "9 dimensions"),
        (np.zeros((3, 3)).T[:, :2], "not in order"),
        (np.asfortranarray(np.zeros((3, 2))), "not in order"),
    ],
)
def test_what_cannot_be_put_is_told_why(tensor: object, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        TensorHeader.of(tensor)


GOOD = TensorHeader("int8", (4,)).pack() + b"abcd"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        GOOD[: HEADER_BYTES - 1],
        GOOD[:-1],
        b"X" + GOOD[1:],
        GOOD[:8] + struct.pack("<i", 15) + GOOD[12:],
        GOOD[:8] + struct.pack("<i", -1) + GOOD[12:],
        GOOD[:12] + struct.pack("<i", 9) + GOOD[16:],
        GOOD[:16] + struct.pack("<I", 2) + GOOD[20:],
        GOOD[:24] + struct.pack("<Q", 303) + GOOD[32:],
        GOOD[:24] + struct.pack("<Q", 305) + GOOD[32:],
        GOOD[:32] + struct.pack("<Q", 5) + GOOD[40:],
        GOOD[:104] + struct.pack("<q", -4) + GOOD[112:],
        GOOD[:104] + struct.pack("<q", 1 << 62) + GOOD[112:],
    ],
)
def test_what_is_no_tensor_is_refused(value: bytes) -> None:
    with pytest.raises(UsageError, match="the value of 'k' is no tensor"):
        described("k", value)


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES + 20), st.integers(0, HEADER_BYTES))
def test_any_bytes_are_a_tensor_or_refused(noise: bytes, good: int) -> None:
    try:
        header, data = described("k", GOOD[:good] + noise[good:])
    except UsageError:
        return
    assert len(data) == header.size


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UsageError, match="this needs torch"):
        as_torch(*described("k", GOOD))


def test_with_pytorch_types_and_shapes_come_back() -> None:
    torch = pytest.importorskip("torch", reason="NO TEST WITH PYTORCH: it is not installed")
    for kind in TYPES:
        tensor = torch.arange(6).to(getattr(torch, kind)).reshape(2, 3)
        header = TensorHeader.of(tensor)
        found = as_torch(*described("k", header.pack() + bytes(tensor.view(torch.uint8).flatten().tolist())))
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(("shape", "split"), [((4,), 0), ((4, 3), 0), ((2, 6), 1), ((3, 2, 4, 5), 2), ((5, 2), 1)])
def test_equal_parts_are_those_of_numpy(shape: tuple[int, ...], split: int) -> None:
    tensor = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    data = memoryview(tensor.tobytes())
    parts = 2
    for rank, header in enumerate(TensorHeader.of(tensor).shards(parts, split)):
        expected = np.split(tensor, parts, axis=split)[rank]
        value = header.pack() + b"".join(header.part_of(data))
        found = as_numpy(*described("k", value))
        assert (found.shape, found.tobytes()) == (expected.shape, expected.tobytes())


def test_parts_of_many_rows_are_put_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MAX_ROWS", 2)
    tensor = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (first, second) = TensorHeader.of(tensor).shards(2, 1)
    assert first.part_of(memoryview(tensor.tobytes())) == [b"\0\1\4\5\x08\x09"]
    assert second.part_of(memoryview(tensor.tobytes())) == [b"\2\3\6\7\x0a\x0b"]
    (empty, _) = TensorHeader("int8", (0, 4)).shards(2, 1)
    assert empty.part_of(memoryview(b"")) == []


def test_the_header_of_a_part_is_upstreams() -> None:
    header = TensorHeader("float32", (8, 6)).shards(3, 1)[2].pack()
    assert len(header) == HEADER_BYTES
    assert struct.unpack_from("<IHHiiIIQQ", header) == (0x4D4F4F4E, 1, 304, 0, 2, 1, 0, 304, 64)
    assert struct.unpack_from("<16q", header, 40) == (8, 6, *[-1] * 6, 8, 2, *[-1] * 6)
    assert struct.unpack_from("<II", header, 168) == (1, 0)
    assert struct.unpack_from("<iiiiiiq", header, 176) == (1, 0, 2, 3, 1, 0, 2)
    assert not any(header[208:])


@pytest.mark.parametrize(
    ("parts", "split", "why"), [(3, 0, "4 cannot be split into 3"), (2, 2, "number 2"), (2, -1, "-1")]
)
def test_what_has_no_equal_parts_is_told(parts: int, split: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        TensorHeader("float32", (4, 6)).shards(parts, split)
