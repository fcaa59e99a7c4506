"""How many tokens a request will put out, from what was seen of requests like it.

Requests that share a prefix have outputs of like length: the turns of one conversation, the questions about one
document. So an average is kept for the blocks at which prompts part, one for each tenant, and one for all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

NEWEST_COUNTS = 0.5
"""What the newest output counts in the average of a prefix or tenant; in that of all, ``NEWEST_OF_ALL``."""

NEWEST_OF_ALL = 0.02

FIRST_GUESS = 256.0
"""Output tokens that are expected before any was seen."""

MAX_KEYS = 100_000
"""Prefixes and tenants that are remembered; the longest unseen go first."""


class OutputLengths:
    """Averages of output tokens."""

    def __init__(self) -> None:
        self._all = FIRST_GUESS
        self._averages: OrderedDict[Hashable, float] = OrderedDict()

    def expected(self, keys: Iterable[Hashable], limit: int | None) -> float:
        """Output tokens of a request: by the first of ``keys`` that is known, and never over ``limit``."""
        averages = self._averages
        found = next((averages[key] for key in keys if key in averages), self._all)
        return found if limit is None else min(found, limit)

    def seen(self, keys: Iterable[Hashable], output: int) -> None:
        """A request put out so many tokens."""
        averages = self._averages
        self._all += NEWEST_OF_ALL * (output - self._all)
        for key in dict.fromkeys(keys):
            before = averages.pop(key, None)
            averages[key] = output if before is None else before + NEWEST_COUNTS * (output - before)
        while len(averages) > MAX_KEYS:
            averages.popitem(last=False)
