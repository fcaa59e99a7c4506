"""Who of several processes brings which chunk for all that want it. Pure; each of them comes to the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence

BLOCK_BYTES = 16 << 20
"""Of adjacent chunks that one brings: what lies together is asked for together."""


class Duties:
    """Each chunk that anybody wants, and who brings it: one who wants it himself, so that all bring as much."""

    def __init__(self, wanted: Sequence[Collection[int]], lengths: Sequence[int], alone: Collection[int] = ()) -> None:
        """``wanted`` are chunks by process, and ``lengths`` those of all chunks in bytes.

        Those ``alone`` are not shared: whoever wants one brings it for itself.
        """
        self.wanted = wanted
        self.alone = frozenset(alone)
        self.bringers: dict[int, int] = {}
        who: dict[int, tuple[int, ...]] = {}
        for process, chunks in enumerate(wanted):
            for chunk in chunks:
                if chunk not in self.alone:
                    who[chunk] = (*who.get(chunk, ()), process)
        self._wanting = who
        loads = [0] * len(wanted)
        shared = []
        for chunk in sorted(who):
            if len(who[chunk]) > 1:
                shared.append(chunk)
                continue
            self.bringers[chunk] = who[chunk][0]
            loads[who[chunk][0]] += lengths[chunk]
        last, left, bringer = -2, 0, 0
        among: tuple[int, ...] = ()
        for chunk in shared:
            if chunk != last + 1 or who[chunk] != among or left <= 0:
                among, left = who[chunk], BLOCK_BYTES
                bringer = min(among, key=lambda process: (loads[process], process))
            self.bringers[chunk] = bringer
            loads[bringer] += lengths[chunk]
            last, left = chunk, left - lengths[chunk]

    def of(self, process: int) -> list[int]:
        """The chunks that one brings, those that it brings for itself alone among them."""
        own = [chunk for chunk, bringer in self.bringers.items() if bringer == process]
        return sorted({*own, *(self.alone & set(self.wanted[process]))})

    def owed(self, process: int, bringer: int) -> set[int]:
        """What one has from another."""
        if process == bringer:
            return set()
        return {chunk for chunk in self.wanted[process] if self.bringers.get(chunk) == bringer}

    def others(self, chunk: int) -> list[int]:
        """Who has a chunk from its bringer."""
        return [process for process in self._wanting.get(chunk, ()) if process != self.bringers[chunk]]
