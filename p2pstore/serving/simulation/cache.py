"""The blocks that a simulated prefill instance keeps; those that were not used for longest go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from p2pstore.serving.events import Block


class Cache:
    """Room for so many blocks."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._blocks: OrderedDict[Block, None] = OrderedDict()  # of a dict, to find the first is slow once it has gaps

    def __len__(self) -> int:
        return len(self._blocks)

    def prefix(self, blocks: Sequence[Block]) -> int:
        """How many of ``blocks`` it has, from the first on."""
        have = self._blocks
        for count, block in enumerate(blocks):
            if block not in have:
                return count
        return len(blocks)

    def use(self, blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
        """``blocks`` are computed, fetched or read: which are new, and which others had to go.

        The last of them count as used first, so that a prefix never outlives what it begins with.
        """
        have = self._blocks
        new = []
        for block in reversed(blocks):
            if block in have:
                have.move_to_end(block)
            else:
                have[block] = None
                new.append(block)
        over = len(have) - self._room
        gone = [have.popitem(last=False)[0] for _ in range(over)]
        if len(blocks) > self._room:  # it pushed out its own end, which was never there
            pushed, added = set(gone), set(new)
            return [block for block in new if block not in pushed], [block for block in gone if block not in added]
        return new, gone
