"""What a listener is told of a replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shared:
    """Whether other seeding receivers follow this replica."""

    shared: bool


News = tuple[range, ...] | Shared
"""Chunks that are verified now, or whether the replica is shared."""


NOTHING: News = ()
"""What is heard when there is no news for a while."""


@dataclass(frozen=True)
class Queued:
    """So many requests of the listener's wait until the peer has served others."""

    requests: int
