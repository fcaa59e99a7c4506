"""Arrays and tensors as values: upstream's header, with type and shape, and behind it the elements as they lie.

Upstream's clients put and get tensors in this form, so that either reads what the other put. Neither NumPy nor PyTorch
is imported before one of their arrays is asked for.
"""

from __future__ import annotations

import importlib
import math
import struct
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
_FULL, _SHARD = 0, 1
DATA, TENSOR, EXPERT, PIPELINE = range(4)
"""Along which axes a tensor is spread: upstream's numbers for data, tensor, expert and pipeline parallelism."""

MAX_AXES = 4
_HEADER = struct.Struct("<IHHiiIIQQ")
_SHAPES = struct.Struct(f"<{2 * MAX_DIMENSIONS}qII")
_AXIS = struct.Struct("<iiiiiiq")
_AXES = MAX_AXES * _AXIS.size
HEADER_BYTES = _HEADER.size + _SHAPES.size + _AXES
"""Of the whole header, in front of the elements."""

MAX_ROWS = 1024
"""Pieces of a shard that are put as they lie; of more a copy in one piece is made."""


class Axis(NamedTuple):
    """A place along an axis: the ``rank``-th of ``parts``, along ``TENSOR`` of equal ones of the dimension ``split``.

    ``split`` is -1 where nothing is split; ``number`` is that of an expert or of a stage.
    """

    kind: int
    rank: int
    parts: int
    split: int = -1
    number: int = 0


class Shard(NamedTuple):
    """Which part of a tensor this is."""

    whole: tuple[int, ...]
    """The shape of the tensor."""
    axes: tuple[Axis, ...]

    @property
    def cut(self) -> Axis | None:
        """Where it is cut out of the tensor, if it is."""
        return next((axis for axis in self.axes if axis.kind == TENSOR), None)


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """What a tensor is: the name of its type, and its shape; and whether it is a part of another."""

    kind: str
    shape: tuple[int, ...]
    shard: Shard | None = None

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
        shard = self.shard
        layout = _FULL if shard is None else _SHARD
        head = _HEADER.pack(
            _MAGIC, _VERSION, HEADER_BYTES, TYPES.index(self.kind), len(self.shape), layout, 0, HEADER_BYTES, self.size
        )
        axes = b""
        if shard is not None:
            axes = b"".join(self._axis(*each) for each in enumerate(shard.axes))
        whole = self.shape if shard is None else shard.whole
        count = len(shard.axes) if shard else 0
        return head + _SHAPES.pack(*_dims(whole), *_dims(self.shape), count, 0) + axes.ljust(_AXES, b"\0")

    def _axis(self, index: int, axis: Axis) -> bytes:
        extent = self.shape[axis.split] if axis.split >= 0 else 0
        return _AXIS.pack(axis.kind, index, axis.rank, axis.parts, axis.split, axis.number, extent)

    def shards(self, parts: int, split: int) -> list[TensorHeader]:
        """The headers of ``parts`` equal parts along a dimension. Raises ``UsageError`` where there can be none."""
        return [self.cut_out((Axis(TENSOR, rank, parts, split),)) for rank in range(parts)]

    def cut_out(self, axes: tuple[Axis, ...]) -> TensorHeader:
        """The header of that part of this tensor. Raises ``UsageError`` where there can be none."""
        cut = Shard(self.shape, axes).cut
        if cut is None:
            return replace(self, shard=Shard(self.shape, axes))
        parts, split = cut.parts, cut.split
        if not 0 <= split < len(self.shape):
            raise UsageError(detail=f"a tensor of {len(self.shape)} dimensions cannot be split along number {split}")
        extent, rest = divmod(self.shape[split], parts)
        if rest:
            raise UsageError(detail=f"{self.shape[split]} cannot be split into {parts} equal parts")
        local = (*self.shape[:split], extent, *self.shape[split + 1 :])
        return TensorHeader(self.kind, local, Shard(self.shape, axes))

    def part_of(self, data: memoryview) -> list[memoryview]:
        """Where this shard's elements lie in those of the whole tensor, piece by piece."""
        shard = self.shard
        cut = shard.cut if shard else None
        if shard is None or cut is None:
            return [data] if self.size else []
        rows = math.prod(shard.whole[: cut.split])
        each = self.size // rows if rows else 0
        if not each:
            return []
        step, start = each * cut.parts, each * cut.rank
        pieces = [data[row * step + start : row * step + start + each] for row in range(rows)]
        return pieces if rows <= MAX_ROWS else [memoryview(b"".join(pieces))]


def _shard(value: bytes | memoryview, shapes: tuple[int, ...], count: int) -> Shard:
    at = _HEADER.size + _SHAPES.size
    fields = [_AXIS.unpack_from(value, at + place * _AXIS.size) for place in range(min(shapes[-2], MAX_AXES))]
    axes = [Axis(kind, rank, parts, split, number) for kind, _, rank, parts, split, number, _ in fields]
    return Shard(tuple(shapes[:count]), tuple(axes))


def _dims(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape + (-1,) * (MAX_DIMENSIONS - len(shape))


def described(key: str, value: bytes | memoryview) -> tuple[TensorHeader, memoryview]:
    """A value's header and elements; of a shard they are its own. Raises ``UsageError`` for one that is no tensor."""

    def is_none(why: str) -> UsageError:
        return UsageError(detail=f"the value of {key!r} is no tensor: {why}")

    if len(value) < HEADER_BYTES:
        raise is_none(f"it has {len(value)} bytes")
    magic, version, length, kind, count, layout, _, offset, size = _HEADER.unpack_from(value)
    if magic != _MAGIC or version != _VERSION or length != HEADER_BYTES:
        raise is_none("it does not begin like one")
    if not 0 <= kind < len(TYPES) or not 0 <= count <= MAX_DIMENSIONS or layout not in {_FULL, _SHARD}:
        raise is_none(f"type {kind}, {count} dimensions, layout {layout}")
    shapes = _SHAPES.unpack_from(value, _HEADER.size)
    local = shapes[MAX_DIMENSIONS : MAX_DIMENSIONS + count]
    header = TensorHeader(TYPES[kind], tuple(local), _shard(value, shapes, count) if layout == _SHARD else None)
    if layout == _SHARD and shapes[-2] > MAX_AXES:
        raise is_none(f"it is spread along {shapes[-2]} axes")
    if min(local, default=0) < 0 or header.size != size or offset < HEADER_BYTES or offset + size > len(value):
        raise is_none(f"its shape {list(local)} does not fit its {size} bytes")
    return header, memoryview(value)[offset : offset + size]


def as_numpy(header: TensorHeader, data: memoryview) -> Any:
    """The array; read-only, since it is the value itself. Raises ``UsageError`` where a library is missing."""
    numpy = library("numpy")
    try:
        kind = numpy.dtype(header.kind)
    except TypeError:
        kind = numpy.dtype(getattr(library("ml_dtypes"), header.kind))
    return numpy.frombuffer(data, dtype=kind).reshape(header.shape)


def as_torch(header: TensorHeader, data: memoryview, *, in_place: bool = False) -> Any:
    """The tensor, in memory of its own unless ``in_place``. Raises ``UsageError`` where PyTorch is missing."""
    torch = library("torch")
    kind = getattr(torch, header.kind)
    if not header.size:
        return torch.empty(header.shape, dtype=kind)
    memory = data if in_place else bytearray(data)
    return torch.frombuffer(memory, dtype=torch.uint8).view(kind).reshape(header.shape)


def library(name: str) -> Any:
    """A library that not everybody has. Raises ``UsageError``."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(detail=f"this needs {name}, which cannot be imported: {error}") from None
