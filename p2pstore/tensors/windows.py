"""Tensors that come one after the other through bounded memory: which chunks are brought together. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from p2pstore.objects.manifest import Manifest
from p2pstore.tensors.plan import Plan, left_out


class Window(NamedTuple):
    """Chunks that are brought together, ascending, and tensors by their numbers in the plan.

    ``begun`` are those of which something comes for the first time, and ``whole`` those of which the last comes. Chunks
    are brought once: a tensor of which others have a chunk, too, is begun in one window and whole in a later one.
    """

    chunks: tuple[int, ...]
    begun: range
    whole: range


def windows(manifest: Manifest, plan: Plan, size: int) -> Iterator[Window]:
    """All chunks that a plan with an area for each tensor needs, ``size`` bytes at a time; one chunk at the least."""
    firsts, lasts = _ends(manifest, plan)
    begun = whole = 0
    for chunks in _bundles(manifest, plan, size):
        end = chunks[-1] if chunks else -1
        next_begun, next_whole = bisect_right(firsts, end), bisect_right(lasts, end)
        yield Window(chunks, range(begun, next_begun), range(whole, next_whole))
        begun, whole = next_begun, next_whole


def _ends(manifest: Manifest, plan: Plan) -> tuple[list[int], list[int]]:
    """Each tensor's first and last chunk. One without bytes is there with the one before it."""
    pieces = {piece.area: piece for piece in plan.pieces}
    firsts: list[int] = []
    lasts: list[int] = []
    last = -1
    for place in plan.places:
        piece = pieces.get(place.area)
        if piece is None:
            first = last
        else:
            chunks = manifest.chunks_of(piece.source, piece.end - piece.source)
            first, last = chunks[0], chunks[-1]
        firsts.append(first)
        lasts.append(last)
    return firsts, lasts


def _bundles(manifest: Manifest, plan: Plan, size: int) -> Iterator[tuple[int, ...]]:
    """The chunks that are needed, in bundles; where there are none at all, one that is empty."""
    bundle: list[int] = []
    held = 0
    for number in left_out(manifest, plan.pieces).missing():
        length = manifest.lengths[number]
        if bundle and held + length > size:
            yield tuple(bundle)
            bundle, held = [], 0
        bundle.append(number)
        held += length
    yield tuple(bundle)
