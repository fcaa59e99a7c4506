"""Which blocks an instance is taken to hold, where nobody tells: those of the prompts that it computed last. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from p2pstore.serving.events import Block, Removed, Stored

MAX_BLOCKS = 50_000
"""Of one instance; those that were not asked for longest are taken to be gone."""


class Assumed:
    """Makes the events ``Stored`` and ``Removed`` of what was computed where."""

    def __init__(self, most: int = MAX_BLOCKS) -> None:
        self._most = most
        self._held: dict[str, OrderedDict[Block, None]] = {}

    def computed(self, instance: str, blocks: Sequence[Block]) -> list[Stored | Removed]:
        """An instance computed a prompt, or found it in its cache."""
        held = self._held.setdefault(instance, OrderedDict())
        # The last first: of what goes, a prefix goes after what builds on it.
        for block in reversed(blocks):
            held[block] = None
            held.move_to_end(block)
        gone = [held.popitem(last=False)[0] for _ in range(len(held) - self._most)]
        kept = [block for block in blocks if block in held] if gone else blocks
        said: list[Stored | Removed] = [Stored(instance, kept)]
        return [*said, Removed(instance, gone)] if gone else said

    def forget(self, instance: str) -> None:
        """An instance is gone, or back without what it had."""
        self._held.pop(instance, None)
