"""How long a get waits for what is not there yet, and how often it tries again what failed. Pure but for the jitter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from engine.net.backoff import SOONER, Backoff
from p2pstore.errors import (
    MetadataFull,
    MetadataUnavailable,
    MooncakeError,
    NodeNotFound,
    NoLivePeer,
    ObjectNotFound,
    RemoteError,
)

PAUSES = Backoff(0.5, 5.0, SOONER)
"""Seconds between attempts."""

NOT_YET = (ObjectNotFound, NodeNotFound, NoLivePeer, RemoteError, MetadataUnavailable)
"""What another attempt may find otherwise."""

NEVER = (MetadataFull,)
"""Of these, what needs somebody's hand."""


class Patience:
    """Says after each failure whether there is to be another attempt, and when.

    ``wait`` is for how many seconds it is tried again without a byte that came, ``retries`` how often beyond that.
    """

    def __init__(self, wait: float, retries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._retries = retries
        self._clock = clock
        self._failures = 0
        self._since = math.nan
        self._done: int | None = None

    def hear(self, event: Mapping[str, Any]) -> None:
        """An event of the get: where bytes came, the next failure is the first again."""
        if event.get("event") == "progress" and "step" not in event:
            if self._done is not None and event["done"] > self._done:
                self._failures = 0
            self._done = event["done"]

    def after(self, error: MooncakeError) -> float | None:
        """Seconds until the next attempt; None where there is to be none."""
        if not isinstance(error, NOT_YET) or isinstance(error, NEVER):
            return None
        now = self._clock()
        self._done = None
        if not self._failures:
            self._since = now
        self._failures += 1
        pause = PAUSES.after(self._failures)
        left = self._since + self._wait - now
        if left > 0:
            return min(pause, left)
        if self._retries <= 0 or isinstance(error, ObjectNotFound):
            return None
        self._retries -= 1
        return pause
