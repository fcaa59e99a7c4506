"""Arrays and tensors as values: upstream's header, with type and shape, and behind it the elements as they lie.

Upstream's clients put and get tensors in this form, so that either reads what the other put. Neither NumPy nor PyTorch
is imported before one of their arrays is asked for.
"""

from __future__ import annotations

import importlib
import math
import struct
from dataclasses import dataclass
from typing import Any

from p2pstore.errors import UsageError

TYPES = (
    "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "float16",
    "bfloat16", "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip
"""In the order of upstream's numbers for them."""

SIZES = (4, 8, 1, 1, 2, 2, 4, 4, 8, 8, 1, 2, 2, 1, 1)
"""Bytes of an element of each."""

MAX_DIMENSIONS = 8

_MAGIC = 0x4D4F4F4E
_VERSION = 1
_FULL = 0
_HEADER = struct.Struct("<IHHiiIIQQ")
_SHAPES = struct.Struct(f"<{2 * MAX_DIMENSIONS}qII")
_AXES = 4 * 32
HEADER_BYTES = _HEADER.size + _SHAPES.size + _AXES
"""Of the whole header, in front of the elements."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """What a tensor is: the name of its type, and its shape."""

    kind: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Any) -> TensorHeader:
        """That of an array or tensor. Raises ``UsageError`` for what is none, or of a type that has no number."""
        kind = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
        shape = getattr(tensor, "shape", None)
        if kind not in TYPES or shape is None:
            what = f"an array of {kind}" if kind else f"a {type(tensor).__name__}"
            raise UsageError(detail=f"{what} is no tensor that can be put: its type must be one of {', '.join(TYPES)}")
        if len(shape) > MAX_DIMENSIONS:
            raise UsageError(detail=f"a tensor of {len(shape)} dimensions; at most {MAX_DIMENSIONS} can be put")
        contiguous = getattr(tensor, "is_contiguous", None)
        flags = getattr(tensor, "flags", None)
        in_order = contiguous() if callable(contiguous) else flags is None or bool(flags.c_contiguous)
        if not in_order:
            detail = "a tensor whose elements are not in order; give a copy (.contiguous(), numpy.ascontiguousarray)"
            raise UsageError(detail=detail)
        return cls(kind, tuple(int(each) for each in shape))

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * SIZES[TYPES.index(self.kind)]

    def pack(self) -> bytes:
        """As it stands in front of the elements."""
        dims = self.shape + (-1,) * (MAX_DIMENSIONS - len(self.shape))
        head = _HEADER.pack(
            _MAGIC, _VERSION, HEADER_BYTES, TYPES.index(self.kind), len(self.shape), _FULL, 0, HEADER_BYTES, self.size
        )
        return head + _SHAPES.pack(*dims, *dims, 0, 0) + bytes(_AXES)


def described(key: str, value: bytes) -> tuple[TensorHeader, memoryview]:
    """A value's header and elements. Raises ``UsageError`` for one that is no tensor as it was put whole."""

    def is_none(why: str) -> UsageError:
        return UsageError(detail=f"the value of {key!r} is no tensor: {why}")

    if len(value) < HEADER_BYTES:
        raise is_none(f"it has {len(value)} bytes")
    magic, version, length, kind, count, layout, _, offset, size = _HEADER.unpack_from(value)
    if magic != _MAGIC or version != _VERSION or length != HEADER_BYTES:
        raise is_none("it does not begin like one")
    if not 0 <= kind < len(TYPES) or not 0 <= count <= MAX_DIMENSIONS:
        raise is_none(f"type {kind}, {count} dimensions")
    if layout != _FULL:
        raise is_none("it is one shard of a tensor, which this client does not put together")
    local = _SHAPES.unpack_from(value, _HEADER.size)[MAX_DIMENSIONS : MAX_DIMENSIONS + count]
    header = TensorHeader(TYPES[kind], tuple(local))
    if min(local, default=0) < 0 or header.size != size or offset < HEADER_BYTES or offset + size > len(value):
        raise is_none(f"its shape {list(local)} does not fit its {size} bytes")
    return header, memoryview(value)[offset : offset + size]


def as_numpy(header: TensorHeader, data: memoryview) -> Any:
    """The array; read-only, since it is the value itself. Raises ``UsageError`` where a library is missing."""
    numpy = _library("numpy")
    try:
        kind = numpy.dtype(header.kind)
    except TypeError:
        kind = numpy.dtype(getattr(_library("ml_dtypes"), header.kind))
    return numpy.frombuffer(data, dtype=kind).reshape(header.shape)


def as_torch(header: TensorHeader, data: memoryview) -> Any:
    """The tensor. Raises ``UsageError`` where PyTorch is missing."""
    torch = _library("torch")
    kind = getattr(torch, header.kind)
    if not header.size:
        return torch.empty(header.shape, dtype=kind)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(kind).reshape(header.shape)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(detail=f"this needs {name}, which cannot be imported: {error}") from None
