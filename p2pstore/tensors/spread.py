"""What of a chunk goes to several places: how it is put together once, and which of it is copied where. Pure.

There are several sets of pieces, one for each rank's slices say, and pieces of different sets may have the same bytes.
Of a chunk those that any piece in one row has are put together as they come, each once; also where a piece has wide
rows, with what lies between them, since a GPU takes such rows out of it by itself. Behind them lies what pieces of
several narrow rows have, row behind row; what is the same for several sets is there once as well.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from p2pstore.tensors.plan import Piece, place_of

WIDE_BYTES = 128
"""Of a row: down to this at least a GPU takes rows as fast as one long range."""


class To(NamedTuple):
    """A place: the number of a set of pieces, and an area and an offset in it."""

    pieces: int
    area: int
    offset: int


class Part(NamedTuple):
    """``rows`` of ``row`` bytes of what is put together, the first at ``start``, the next ``stride`` bytes after it.

    And all places to which they go: there they lie end to end.
    """

    start: int
    row: int
    places: tuple[To, ...]
    rows: int = 1
    stride: int = 0

    @property
    def length(self) -> int:
        """Of all rows."""
        return self.row * self.rows


class Stretch(NamedTuple):
    """A range of the object. ``start`` is where it is put as it is, and None where nobody wants that.

    ``rows`` are pieces that have rows in it, each with what is added to a place in memory for where they are put.
    """

    begin: int
    end: int
    start: int | None
    rows: tuple[tuple[Piece, int], ...]


class Layout(NamedTuple):
    """How so many bytes are put together: ``stretches`` are the whole range, from front to back."""

    size: int
    stretches: tuple[Stretch, ...]
    parts: tuple[Part, ...]


class SpreadMap:
    """Sets of pieces, to be asked how a range of the object is shared by them."""

    def __init__(self, sets: Sequence[Sequence[Piece]], wide: int = WIDE_BYTES) -> None:
        """Each is as in ``Plan``: in the object's order, without overlaps. ``wide`` are rows of so many bytes."""
        self._sets = sets
        self._wide_bytes = wide
        self._starts = [[piece.source for piece in pieces] for pieces in sets]

    def layout(self, begin: int, end: int) -> Layout:
        """How the range is put together, and where that goes."""
        found = [list(self._within(number, begin, end)) for number in range(len(self._sets))]
        spans = list(_spans(found, begin, end))
        starts: list[int | None] = []
        parts: list[Part] = []
        begins: dict[tuple[int, int, int, int], int] = {}  # of wide pieces: where what lies at their first byte is put
        at = 0
        for low, high, covering in spans:
            places = tuple(
                To(number, piece.area, piece.to + low - piece.source) for number, piece in covering if piece.rows == 1
            )
            wide = [_geometry(piece) for _, piece in covering if self._wide(piece)]
            starts.append(at if places or wide else None)
            if places:
                _add(parts, Part(at, high - low, places))
            for key in wide:
                begins.setdefault(key, at)
            if places or wide:
                at += high - low
        shifts: dict[tuple[int, int, int, int], int] = {}
        for key, several in _alike(found).items():
            first = several[0][1]
            if self._wide(first):
                for start, row, rows, to in _rows(first, begin, end):
                    places = tuple(To(number, piece.area, piece.to + to) for number, piece in several)
                    shift = begins[key] - max(begin, first.source)
                    parts.append(Part(start + shift, row, places, rows, first.stride if rows > 1 else 0))
                continue
            length = place_of(first, end) - place_of(first, begin)
            if length:
                places = tuple(To(number, piece.area, place_of(piece, begin)) for number, piece in several)
                parts.append(Part(at, length, places))
                shifts[key] = at - place_of(first, begin) + first.to
                at += length
        return Layout(at, tuple(_stretches(spans, starts, shifts)), tuple(parts))

    def _wide(self, piece: Piece) -> bool:
        return piece.rows > 1 and piece.row >= self._wide_bytes

    def _within(self, number: int, begin: int, end: int) -> Iterator[Piece]:
        """The pieces of a set that have something of the range, or go across it."""
        pieces = self._sets[number]
        for index in range(max(0, bisect_right(self._starts[number], begin) - 1), len(pieces)):
            piece = pieces[index]
            if piece.source >= end:
                return
            if piece.end > begin:
                yield piece


_Span = tuple[int, int, list[tuple[int, Piece]]]


def _spans(found: Sequence[Sequence[Piece]], begin: int, end: int) -> Iterator[_Span]:
    """The range in the parts in which the same pieces cover all of it, with these and their sets' numbers."""
    edges = {begin, end}
    for pieces in found:
        for piece in pieces:
            edges.update((max(begin, piece.source), min(end, piece.end)))
    order = sorted(edges)
    following = [0] * len(found)
    for low, high in itertools.pairwise(order):
        covering = []
        for number, pieces in enumerate(found):
            while following[number] < len(pieces) and pieces[following[number]].end <= low:
                following[number] += 1
            if following[number] < len(pieces) and pieces[following[number]].source <= low:
                covering.append((number, pieces[following[number]]))
        yield low, high, covering


def _rows(piece: Piece, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """What a piece of several rows has of a range: part of a row, whole rows, and part of one.

    Of each: where it begins in the object, the length of a row, how many there are, and where in the piece's memory.
    """
    low, high = max(begin, piece.source), min(end, piece.end)
    number, inside = divmod(low - piece.source, piece.stride)
    if inside:
        if inside < piece.row:
            yield low, min(piece.row - inside, high - low), 1, number * piece.row + inside
        number += 1
    whole = max(0, (high - piece.source - piece.row) // piece.stride + 1 - number)
    if whole:
        yield piece.source + number * piece.stride, piece.row, whole, number * piece.row
        number += whole
    start = piece.source + number * piece.stride
    if start < high:
        yield start, high - start, 1, number * piece.row


def _geometry(piece: Piece) -> tuple[int, int, int, int]:
    return piece.source, piece.row, piece.stride, piece.rows


def _alike(found: Sequence[Sequence[Piece]]) -> dict[tuple[int, int, int, int], list[tuple[int, Piece]]]:
    """Pieces of several rows, those of the same bytes together."""
    alike: dict[tuple[int, int, int, int], list[tuple[int, Piece]]] = {}
    for number, pieces in enumerate(found):
        for piece in pieces:
            if piece.rows > 1:
                alike.setdefault(_geometry(piece), []).append((number, piece))
    return alike


def _add(parts: list[Part], part: Part) -> None:
    """Add a part of one row, joined to the one before where it continues that everywhere."""
    before = parts[-1] if parts else None
    if before is not None and before.start + before.row == part.start:
        ends = tuple(place._replace(offset=place.offset + before.row) for place in before.places)
        if ends == part.places:
            parts[-1] = before._replace(row=before.row + part.row)
            return
    parts.append(part)


def _stretches(
    spans: Sequence[_Span], starts: Sequence[int | None], shifts: dict[tuple[int, int, int, int], int]
) -> Iterator[Stretch]:
    """What is done with each part of the range; neighbours with which the same is done are one."""
    before: Stretch | None = None
    for (low, high, covering), start in zip(spans, starts, strict=True):
        rows: dict[tuple[int, int, int, int], tuple[Piece, int]] = {}
        for _, piece in covering:
            key = _geometry(piece)
            if piece.rows > 1 and key in shifts:
                rows.setdefault(key, (piece._replace(area=0, to=0), shifts[key]))
        stretch = Stretch(low, high, start, tuple(rows.values()))
        if before is not None and before.rows == stretch.rows and (before.start is None) == (start is None):
            stretch = stretch._replace(begin=before.begin, start=before.start)
        elif before is not None:
            yield before
        before = stretch
    if before is not None:
        yield before
