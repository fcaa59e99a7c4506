"""The chunks that are missing and that nobody fetches now, by how widely the getters of a swarm have them. Pure."""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Sequence

from p2pstore.objects.bitmap import Bitmap

RUN_BYTES = 1 << 20
"""Adjacent chunks are fetched as one request while together they stay below this, so that getters soon have some."""

RUN_CHUNKS = 1024
"""And while they are no more than this."""


class Missing:
    """Missing chunks in lists by spread: the number of known getters that have a chunk.

    Each chunk's place in its list is known, so that it moves from list to list, and is drawn, in constant time.
    """

    def __init__(self, missing: Iterable[int], lengths: Sequence[int], rng: random.Random) -> None:
        self._lengths = lengths
        self._random = rng
        self._spread = [0] * len(lengths)
        self._place: dict[int, int] = {}
        self._lists: list[list[int]] = [[]]
        for chunk in missing:
            self._insert(chunk)

    def __bool__(self) -> bool:
        return bool(self._place)

    def __contains__(self, chunk: int) -> bool:
        return chunk in self._place

    def gain(self, chunks: Iterable[int], have: Bitmap, had: Bitmap) -> list[int]:
        """A getter, which had ``have``, has these now: those of them that this node lacks, missing or in flight.

        One walk over them, since of all that a swarm says most is this.
        """
        place, spread, lists = self._place, self._spread, self._lists
        lacking = []
        for chunk in chunks:
            if not have.add(chunk):
                continue
            old = spread[chunk]
            spread[chunk] = new = old + 1
            at = place.get(chunk)
            if at is None:
                if chunk not in had:
                    lacking.append(chunk)
                continue
            lacking.append(chunk)
            last = lists[old].pop()
            if last != chunk:
                lists[old][at] = last
                place[last] = at
            if len(lists) == new:
                lists.append([])
            place[chunk] = len(lists[new])
            lists[new].append(chunk)
        return lacking

    def draw_new(self, candidates: list[int], count: int) -> int | None:
        """As ``draw``, of those that no getter has that counts."""
        best = self.draw(candidates, count)
        if best is None or not self._spread[best]:
            return best
        return next((chunk for chunk in candidates if chunk in self._place and not self._spread[chunk]), None)

    def spread(self, chunks: Iterable[int], by: int) -> None:
        """So many getters more (or, below 0, fewer) have these."""
        for chunk in chunks:
            if chunk in self._place:
                self._extract(chunk)
                self._spread[chunk] += by
                self._insert(chunk)
            else:
                self._spread[chunk] += by

    def put_back(self, chunk: int) -> None:
        """A chunk that was taken is missing again."""
        if chunk not in self._place:
            self._insert(chunk)

    def discard(self, chunk: int) -> None:
        """A chunk is had, whoever brought it."""
        if chunk in self._place:
            self._extract(chunk)

    def any_of(self, candidates: list[int]) -> bool:
        """Whether one of the candidates is missing; those at the end that are not are forgotten."""
        while candidates and candidates[-1] not in self._place:
            candidates.pop()
        return bool(candidates)

    def rarest(self) -> int | None:
        """A random one of the least spread chunks."""
        return next(iter(self.some_rarest(1)), None)

    def some_rarest(self, count: int) -> list[int]:
        """So many random ones of the least spread chunks, with repeats; none where none is missing."""
        chunks = next((chunks for chunks in self._lists if chunks), [])
        return [chunks[self._random.randrange(len(chunks))] for _ in range(count)] if chunks else []

    def draw(self, candidates: list[int], count: int) -> int | None:
        """The least spread of ``count`` random candidates that are missing; others that come up are forgotten."""
        place, spread, bits = self._place, self._spread, self._random.getrandbits
        best: int | None = None
        while count and candidates:
            # As randrange draws, without what it costs beside: this is most of what choosing a chunk takes.
            length = len(candidates)
            width = length.bit_length()
            at = bits(width)
            while at >= length:
                at = bits(width)
            chunk = candidates[at]
            if chunk not in place:
                candidates[at] = candidates[-1]
                candidates.pop()
                continue
            count -= 1
            if best is None or spread[chunk] < spread[best]:
                best = chunk
        return best

    def take_run(
        self, first: int, have: Bitmap, *, most: int = RUN_BYTES, among: Container[int] | None = None
    ) -> range:
        """Take ``first``, and the missing chunks around it that are in ``have``, while the run has ``most`` bytes.

        With ``among``, of these only what is in that and no getter has.
        """
        start = first
        total = self._lengths[first]
        while self._joins(start - 1, have, among) and total + self._lengths[start - 1] <= most // 2:
            start -= 1
            total += self._lengths[start]
        stop = start + 1
        total = self._lengths[start]
        while self._joins(stop, have, among) and stop - start < RUN_CHUNKS and total + self._lengths[stop] <= most:
            total += self._lengths[stop]
            stop += 1
        for chunk in range(start, stop):
            self._extract(chunk)
        return range(start, stop)

    def take_new(self, run: range) -> range:
        """Take the first of the run's chunks that is missing and no getter has, and those like it that follow."""
        new = [chunk in self._place and not self._spread[chunk] for chunk in run]
        if True not in new:
            return range(0)
        first = new.index(True)
        stop = new.index(False, first) if False in new[first:] else len(new)
        for chunk in run[first:stop]:
            self._extract(chunk)
        return run[first:stop]

    def _joins(self, chunk: int, have: Bitmap, among: Container[int] | None) -> bool:
        """Whether a neighbour may come along."""
        if among is not None and (chunk not in among or self._spread[chunk]):
            return False
        return chunk in self._place and chunk in have

    def _insert(self, chunk: int) -> None:
        spread = self._spread[chunk]
        while len(self._lists) <= spread:
            self._lists.append([])
        self._place[chunk] = len(self._lists[spread])
        self._lists[spread].append(chunk)

    def _extract(self, chunk: int) -> None:
        chunks = self._lists[self._spread[chunk]]
        place = self._place.pop(chunk)
        last = chunks.pop()
        if last != chunk:
            chunks[place] = last
            self._place[last] = place
