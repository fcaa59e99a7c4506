"""How tensors that are spread along several axes lie in the pool: upstream's names for it, its keys and its manifests.

A shard is a value of its own, whose key says where it stands along each axis. A manifest beside the shards says what
they are parts of. Source: upstream's ``store_py_internal.h``. Pure.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from p2pstore.errors import UsageError
from p2pstore.kv.client.tensors import (
    DATA,
    EXPERT,
    MAX_AXES,
    MAX_DIMENSIONS,
    PIPELINE,
    TENSOR,
    TYPES,
    Axis,
    TensorHeader,
)

KINDS = {"dp": DATA, "tp": TENSOR, "ep": EXPERT, "pp": PIPELINE}
"""The kinds of axes, by upstream's words."""

MODES = ("as_stored", "shard", "full")
"""What a reader may want: the value of that key, a part of the tensor, or all of it."""

_WORDS = {kind: word for word, kind in KINDS.items()}
_NUMBERS = {EXPERT: ("_eid", "expert_id"), PIPELINE: ("_sid", "stage_id")}
_MANIFEST = struct.Struct(f"<IHHiiiii4x{MAX_DIMENSIONS}q")
_MAGIC = 0x574D414E
_VERSION = 1


class ParallelAxis:
    """Where a shard stands along one axis: the ``rank``-th of ``size``. ``kind`` is tp, dp, ep or pp."""

    def __init__(self) -> None:
        self.kind = ""
        self.rank = 0
        self.size = 1
        self.split_dim: int | None = None
        self.expert_id: int | None = None
        self.stage_id: int | None = None


class TensorParallelism:
    """Where a shard stands, along all axes."""

    def __init__(self) -> None:
        self.axes: list[ParallelAxis] = []


class ReadTarget:
    """What a reader wants of a tensor."""

    def __init__(self) -> None:
        self._mode = MODES[0]
        self.parallelism: TensorParallelism | None = None

    @property
    def mode(self) -> str:
        """One of ``MODES``. Raises ``RuntimeError``, as upstream's, when it is set to something else."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode.lower() not in MODES:
            raise RuntimeError(f"Unsupported ReadTarget mode {mode!r}: it is one of {', '.join(MODES)}")
        self._mode = mode.lower()


class Manifest(NamedTuple):
    """What shards are parts of: a tensor of that type and shape, cut along ``split`` into so many."""

    kind: str
    shape: tuple[int, ...]
    split: int
    parts: int

    def pack(self) -> bytes:
        """As it is put."""
        dims = self.shape + (-1,) * (MAX_DIMENSIONS - len(self.shape))
        number = TYPES.index(self.kind)
        return _MANIFEST.pack(
            _MAGIC, _VERSION, _MANIFEST.size, number, len(self.shape), self.split, self.parts, 0, *dims
        )

    @classmethod
    def read(cls, data: bytes | memoryview) -> Manifest | None:
        """What a value says; None of what is none."""
        if len(data) < _MANIFEST.size:
            return None
        magic, version, length, number, count, split, parts, _, *dims = _MANIFEST.unpack_from(data)
        known = (magic, version, length) == (_MAGIC, _VERSION, _MANIFEST.size) and 0 <= number < len(TYPES)
        if not known or not 0 < count <= MAX_DIMENSIONS:
            return None
        return _sound(cls(TYPES[number], tuple(dims[:count]), split, parts))

    @classmethod
    def of(cls, shard: TensorHeader) -> Manifest | None:
        """That of a shard's tensor, where it is cut out of one; None, too, where the shard says what cannot be."""
        cut = shard.shard.cut if shard.shard else None
        if shard.shard is None or cut is None:
            return None
        return _sound(cls(shard.kind, shard.shard.whole, cut.split, cut.parts))


def _sound(it: Manifest) -> Manifest | None:
    """None of what cannot be: others wrote it, and nobody shall count with 0 parts, or with a missing dimension."""
    return it if 0 <= it.split < len(it.shape) and it.parts > 0 and min(it.shape) >= 0 else None


def axes_of(parallelism: Any) -> tuple[Axis, ...]:
    """The axes, in the order that they were given in. Raises ``UsageError`` for what makes no sense."""
    given = list(getattr(parallelism, "axes", ()))
    if not 0 < len(given) <= MAX_AXES:
        raise UsageError(detail=f"a TensorParallelism has one to {MAX_AXES} axes, and not {len(given)}")
    axes = tuple(map(_axis, given))
    if len({axis.kind for axis in axes}) < len(axes):
        raise UsageError(detail="two axes of one kind; each kind can be there once")
    return axes


def _axis(given: Any) -> Axis:
    word = str(given.kind).lower()
    if word not in KINDS:
        raise UsageError(detail=f"the kind of an axis is tp, dp, ep or pp, and not {given.kind!r}")
    kind = KINDS[word]
    rank, parts, split = int(given.rank), int(given.size), given.split_dim
    if not 0 <= rank < parts:
        raise UsageError(detail=f"rank {rank} of {parts} along {word}: ranks count from 0")
    if (kind == TENSOR) != (split is not None):
        raise UsageError(detail=f"split_dim is {split}: along tp it must be there, and along the others it must not")
    number = 0
    if kind in _NUMBERS:
        name = _NUMBERS[kind][1]
        if getattr(given, name) is None:
            raise UsageError(detail=f"an axis of kind {word} must have its {name}")
        number = int(getattr(given, name))
    return Axis(kind, rank, parts, -1 if split is None else int(split), number)


def writer_axis(writer: Any) -> Axis:
    """What a ``writer_partition`` says: rank, size and split_dim. Raises ``UsageError``."""
    rank, parts, split = (getattr(writer, name, None) for name in ("rank", "size", "split_dim"))
    if rank is None or parts is None or split is None or not 0 <= rank < parts or split < 0:
        detail = f"a writer_partition has a rank below its size, and a split_dim, and not {rank}, {parts}, {split}"
        raise UsageError(detail=detail)
    return Axis(TENSOR, int(rank), int(parts), int(split))


def canonical(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """In the order that keys have them."""
    return tuple(sorted(axes))


def key_of(base: str, axes: Sequence[Axis]) -> str:
    """The key of a shard."""
    if len(axes) == 1 and axes[0].kind == TENSOR:
        return f"{base}_tp_{axes[0].rank}"
    return base + "".join(f"__{_WORDS[axis.kind]}_{_place(axis)}" for axis in canonical(axes))


def _place(axis: Axis) -> str:
    split = f"_sd{axis.split}" if axis.split >= 0 else ""
    number = f"{_NUMBERS[axis.kind][0]}{axis.number}" if axis.kind in _NUMBERS else ""
    return f"{axis.rank}of{axis.parts}{split}{number}"


def writer_key(base: str, axis: Axis) -> str:
    """The key of a shard that was put by its ``writer_partition``."""
    return f"{base}__writer_{_place(axis)}"


def manifest_key(base: str) -> str:
    """Of the manifest beside shards."""
    return f"{base}__parallelism_manifest"


def writers_manifest_key(base: str) -> str:
    """Of the manifest beside shards that were put by ``writer_partition``."""
    return f"{base}__writer_manifest"


def of_shard(part: TensorHeader, axes: tuple[Axis, ...]) -> TensorHeader:
    """The header of a tensor that is such a part itself, of a tensor that is not there. Raises ``UsageError``."""
    (cut,) = axes
    if not 0 <= cut.split < len(part.shape):
        raise UsageError(detail=f"a tensor of {len(part.shape)} dimensions is no part along number {cut.split}")
    whole = list(part.shape)
    whole[cut.split] *= cut.parts
    return TensorHeader(part.kind, tuple(whole)).cut_out(axes)


def extent(total: int, rank: int, parts: int) -> tuple[int, int]:
    """Where the ``rank``-th of equal parts begins, and its length. Raises ``UsageError`` where there are none."""
    if total % parts:
        raise UsageError(detail=f"{total} cannot be split into {parts} equal parts")
    return total // parts * rank, total // parts


def copies(
    shape: Sequence[int], split: int, item: int, parts: int, wanted: tuple[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """How equal parts of a tensor make up ``wanted``, start and length along ``split``: part, from, to and bytes."""
    rows, inner = math.prod(shape[:split]), math.prod(shape[split + 1 :]) * item
    each = shape[split] // parts
    first, length = wanted
    for part in range(parts):
        begin, end = max(first, part * each), min(first + length, (part + 1) * each)
        if begin >= end or not inner:
            continue
        for row in range(rows):
            source = (row * each + begin - part * each) * inner
            yield part, source, (row * length + begin - first) * inner, (end - begin) * inner
