"""Planners to feed, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import (
    Action,
    Fetch,
)
from p2pstore.swarm.planner import (
    Planner,
)

KIB = 1 << 10
MIB = 1 << 20


def bits(size: int, chunks: Sequence[int]) -> Bitmap:
    made = Bitmap(size)
    made.update(chunks)
    return made


def planner(count: int, length: int = MIB) -> Planner:
    return Planner([length] * count, Bitmap(count), seed=1)


def fetched(actions: list[Action]) -> list[int]:
    return [c for a in actions if isinstance(a, Fetch) for c in a.run]
