"""Which instance holds which blocks, and how much of a prompt each has. Pure.

An instance is a bit in a mask, so that one pass over a prompt's blocks finds what every instance has of it, and the
pass ends where nobody has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from p2pstore.serving.events import Block


@dataclass(slots=True)
class Match:
    """How many of a prompt's blocks each instance has, or will have when what it was given is done.

    ``lengths`` leaves out those that have none, and ``longest`` is the greatest. ``best`` blocks are held now by those
    for which ``holds`` is true.
    """

    lengths: dict[int, int] = field(default_factory=dict)
    longest: int = 0
    best: int = 0
    holders: int = 0

    def holds(self, number: int) -> bool:
        """Whether an instance holds the first ``best`` blocks."""
        return bool(self.holders & _HELD << 2 * number)


_HELD = 1
_EXPECTED = 2
"""The two bits that an instance has in the mask of a block: it is there, and it is or will be there."""


def members(numbers: Iterable[int]) -> int:
    """The mask of some instances, which says to ``match`` whom it is about."""
    return sum(_HELD << 2 * number for number in numbers)


class Prefixes:
    """The index of blocks. Instances are numbers from 0."""

    def __init__(self) -> None:
        self._masks: dict[Block, int] = {}

    def stored(self, number: int, blocks: Sequence[Block]) -> None:
        """An instance holds blocks."""
        self._set((_HELD | _EXPECTED) << 2 * number, blocks)

    def expect(self, number: int, blocks: Sequence[Block]) -> None:
        """An instance will hold blocks."""
        self._set(_EXPECTED << 2 * number, blocks)

    def unexpect(self, number: int, blocks: Sequence[Block]) -> None:
        """It will not: those that it does not hold, it lacks."""
        held = _HELD << 2 * number
        masks = self._masks
        self.removed(number, [block for block in blocks if not masks.get(block, 0) & held])

    def removed(self, number: int, blocks: Sequence[Block]) -> None:
        """An instance dropped blocks."""
        masks, bits = self._masks, (_HELD | _EXPECTED) << 2 * number
        for block in blocks:
            before = masks.get(block, 0)
            after = before & ~bits
            if after:
                masks[block] = after
            elif before:
                del masks[block]

    def forget(self, number: int) -> None:
        """An instance is gone, and its number may be another's."""
        bits = (_HELD | _EXPECTED) << 2 * number
        self.removed(number, [block for block, mask in self._masks.items() if mask & bits])

    def _set(self, bits: int, blocks: Sequence[Block]) -> None:
        masks = self._masks
        for block in blocks:
            masks[block] = masks.get(block, 0) | bits

    def match(self, blocks: Sequence[Block], held: int) -> Match:
        """What each of some instances has from the beginning of ``blocks``; ``held``: their ``members``."""
        match = Match()
        masks = self._masks
        among = held * (_HELD | _EXPECTED)
        depth = 0
        for block in blocks:
            remain = among & masks.get(block, 0)
            if remain != among:
                _note(match, among, remain, held, depth)
                among = remain
                if not among:
                    return match
            depth += 1
        _note(match, among, 0, held, depth)
        return match


def _note(match: Match, before: int, after: int, held: int, depth: int) -> None:
    """Instances have the first ``depth`` blocks and not the next."""
    if not depth:
        return
    match.longest = depth
    if before & held and not after & held:
        match.best, match.holders = depth, before & held
    lost = (before & ~after) >> 1 & held
    while lost:
        low = lost & -lost
        match.lengths[low.bit_length() >> 1] = depth
        lost ^= low
