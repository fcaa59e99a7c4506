"""Which prefixes many ask for while few hold them: those are copied to one more instance. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from p2pstore.serving.events import Block, Kind, Replicate
from p2pstore.serving.prefixes import Match, Prefixes
from p2pstore.serving.roster import Roster

HOT_SECONDS = 60.0
HOT_HITS = 8
"""A prefix is hot when it was asked for so often, for each instance that holds it, within the first."""

MAX_COUNTED = 100_000
"""Prefixes whose hits are counted; others are not until the count begins again."""


class HotPrefixes:
    """Counts what is asked for, and says what to copy."""

    def __init__(self) -> None:
        self._hits: dict[Block, tuple[int, Sequence[Block]]] = {}
        self._since = 0.0

    def count(self, blocks: Sequence[Block], match: Match) -> None:
        """A prompt was asked for, the first ``match.best`` blocks of which somebody holds."""
        if match.best:
            last = blocks[match.best - 1]
            count, prefix = self._hits.get(last, (0, ()))
            if count or len(self._hits) < MAX_COUNTED:
                self._hits[last] = (count + 1, prefix or blocks[: match.best])

    def copies(self, prefixes: Prefixes, roster: Roster, now: float) -> list[Replicate]:
        """What is to be copied now; the count begins anew from time to time."""
        if now - self._since < HOT_SECONDS:
            return []
        hits, self._hits, self._since = self._hits, {}, now
        made = (_copied(blocks, count, prefixes, roster, now) for count, blocks in hits.values() if count >= HOT_HITS)
        return [decision for decision in made if decision is not None]


def _copied(blocks: Sequence[Block], count: int, prefixes: Prefixes, roster: Roster, now: float) -> Replicate | None:
    match = prefixes.match(blocks, roster.members)
    holders = [one for one in roster.every if match.holds(one.number)]
    if match.best < len(blocks) or count < HOT_HITS * len(holders):
        return None
    takers = roster.open(Kind.PREFILL, frozenset(), now)
    lacking = [one for one in takers if match.lengths.get(one.number, 0) < len(blocks)]
    if not lacking:
        return None
    source = min(holders, key=lambda one: (one.sending, one.used))
    target = min(lacking, key=lambda one: (one.wait(now), one.used))
    return Replicate(blocks, source.name, target.name)
