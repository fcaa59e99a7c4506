"""Where the bytes of wanted tensors lie in an object, and where they are to go: into few areas of memory. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from p2pstore.errors import UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.tensors.dtypes import DTYPES
from p2pstore.tensors.header import Tensor

ALIGNMENT = 16
"""Bytes: tensors that do not follow one another in the file begin at a multiple of it, as the kernels of GPUs like it.
Shorter ones begin at a multiple of their numbers' size, so that what lies between never takes more than they do."""


class Cut(NamedTuple):
    """A tensor's ``part`` of ``parts``, along a dimension."""

    dimension: int
    part: int
    parts: int


class Piece(NamedTuple):
    """Bytes that go from an object to memory: ``rows`` of ``row`` bytes each, the first at ``source``.

    In the object the next row begins ``stride`` bytes after the last; in memory, number ``area``, they lie end to end
    from ``to`` on.
    """

    source: int
    row: int
    stride: int
    rows: int
    area: int
    to: int

    @property
    def end(self) -> int:
        """After its last byte in the object."""
        return self.source + (self.rows - 1) * self.stride + self.row


class Place(NamedTuple):
    """Where a tensor, or the slice of it that is wanted, lies in memory number ``area``; its shape is that slice's."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    area: int
    offset: int
    length: int


class Plan(NamedTuple):
    """``sizes`` are those of the areas of memory, in bytes; ``pieces`` are in the object's order and do not overlap."""

    sizes: tuple[int, ...]
    places: tuple[Place, ...]
    pieces: tuple[Piece, ...]


def make_plan(
    wanted: Iterable[tuple[int, Tensor, Cut | None]], file_offsets: Sequence[int], *, apart: bool = False
) -> Plan:
    """A place for each of the tensors, which come with their files' numbers, as these lie in the object.

    Each file has an area, or each tensor where they are to be ``apart``. What follows one another in a file does so in
    its area, unless a tensor would not be aligned to the size of its numbers. Raises ``UsageError`` for a cut that
    cannot be.
    """
    sizes: list[int] = []
    places: list[Place] = []
    pieces: list[Piece] = []
    file = -1
    for number, tensor, cut in wanted:
        if number != file or apart:
            file = number
            sizes.append(0)
        area, at = len(sizes) - 1, sizes[-1]
        piece, shape = _cut(tensor, cut, file_offsets[number])
        length = piece.row * piece.rows
        before = pieces[-1] if pieces else None
        follows = before is not None and _follows(before, piece, area, at)
        numbers = max(1, DTYPES[tensor.dtype].bits // 8)
        if not (follows and at % numbers == 0):
            at += -at % (ALIGNMENT if length >= ALIGNMENT else numbers)
            follows = False
        places.append(Place(tensor.name, tensor.dtype, shape, area, at, length))
        sizes[-1] = at + length
        if not length:
            continue
        if follows and before is not None:
            pieces[-1] = before._replace(row=before.row + length, stride=before.row + length)
        else:
            pieces.append(piece._replace(area=area, to=at))
    return Plan(tuple(sizes), tuple(places), tuple(pieces))


def _follows(before: Piece, piece: Piece, area: int, at: int) -> bool:
    """Whether a piece continues the one before it, in the object and at ``at`` in memory."""
    return (before.rows, piece.rows, before.area, before.end, before.to + before.row) == (1, 1, area, piece.source, at)


def _cut(tensor: Tensor, cut: Cut | None, file_offset: int) -> tuple[Piece, tuple[int, ...]]:
    """The piece that a cut leaves of a tensor, area and place still to be found, and its shape."""
    begin, length = file_offset + tensor.begin, tensor.end - tensor.begin
    if cut is None or cut.parts == 1:
        return Piece(begin, length, length, 1, 0, 0), tensor.shape
    dimension, part, parts = cut
    if not 0 <= dimension < len(tensor.shape):
        raise UsageError(detail=f"tensor {tensor.name!r} of shape {list(tensor.shape)} has no dimension {dimension}")
    extent = tensor.shape[dimension]
    whole, rest = divmod(extent, parts)
    if rest:
        detail = (
            f"dimension {dimension} of tensor {tensor.name!r}, {extent}, is no multiple of {parts}; "
            "say with cut= what a rank gets of it, None for all"
        )
        raise UsageError(detail=detail)
    bits = DTYPES[tensor.dtype].bits * math.prod(tensor.shape[dimension + 1 :])
    if whole * bits % 8:
        detail = f"{tensor.dtype} of tensor {tensor.name!r} cannot be cut into {parts}: a part ends inside a byte"
        raise UsageError(detail=detail)
    rows = math.prod(tensor.shape[:dimension]) if whole and length else 1
    row, stride = whole * bits // 8, extent * bits // 8
    shape = (*tensor.shape[:dimension], whole, *tensor.shape[dimension + 1 :])
    if not length:
        return Piece(begin, 0, 0, 1, 0, 0), shape
    return Piece(begin + part * row, row, stride if rows > 1 else row, rows, 0, 0), shape


def left_out(manifest: Manifest, pieces: Iterable[Piece]) -> Bitmap:
    """The chunks of which none of these pieces needs a byte."""
    wanted = Bitmap(manifest.chunks)
    for piece in pieces:
        if piece.stride - piece.row < manifest.chunk_size:
            wanted.update(manifest.chunks_of(piece.source, piece.end - piece.source))
        else:
            for row in range(piece.rows):
                wanted.update(manifest.chunks_of(piece.source + row * piece.stride, piece.row))
    return all_but(manifest, wanted)


def all_but(manifest: Manifest, chunks: Iterable[int]) -> Bitmap:
    """The chunks that are not among these."""
    these, others = Bitmap(manifest.chunks), Bitmap(manifest.chunks)
    these.update(chunks)
    others.update(these.missing())
    return others


class Segment(NamedTuple):
    """A range of an object, and the piece that has something of it: all of it where that has one row. None for none."""

    begin: int
    end: int
    piece: Piece | None


class Map:
    """Pieces, to be asked what of a range goes where."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._starts = [piece.source for piece in pieces]

    def segments(self, begin: int, end: int) -> Iterator[Segment]:
        """What becomes of a range of the object, from front to back; together the segments are the range."""
        number = max(0, bisect_right(self._starts, begin) - 1)
        at = begin
        while at < end:
            while number < len(self._pieces) and self._pieces[number].end <= at:
                number += 1
            piece = self._pieces[number] if number < len(self._pieces) else None
            if piece is None or piece.source >= end:
                yield Segment(at, end, None)
                return
            if piece.source > at:
                yield Segment(at, piece.source, None)
                at = piece.source
            stop = min(end, piece.end)
            yield Segment(at, stop, piece)
            at = stop


def place_of(piece: Piece, offset: int) -> int:
    """Where the first byte of a piece goes that is not before ``offset`` in the object; its end where there is none."""
    row, rest = divmod(max(0, offset - piece.source), piece.stride)
    return piece.to + min(row * piece.row + min(rest, piece.row), piece.rows * piece.row)


def rows_of(piece: Piece, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """What a piece has of a range of the object: from and to, counted from ``begin``, and where it goes."""
    first = max(0, (begin - piece.source) // piece.stride)
    for row in range(first, piece.rows):
        start = piece.source + row * piece.stride
        if start >= end:
            return
        low, high = max(begin, start), min(end, start + piece.row)
        if low < high:
            yield low - begin, high - begin, piece.to + row * piece.row + low - start
