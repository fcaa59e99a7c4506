"""What happened to a key last, for people who ask why it is not there. Bounded: the oldest is forgotten."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from engine.rpc.messages import DEFAULT_TENANT

MAX_EVENTS = 20_000
"""Keys of which the last event is remembered; some 10 MB with keys of 120 characters."""

PAGES = 20
"""Parts in which they are forgotten: each goes in some 0.3 ms."""

MAX_KEY = 1024
"""Characters of the longest key that is remembered: a few long ones would take as much as all others."""


class Event(NamedTuple):
    """One thing that happened to a key; ``at`` is the pool's clock."""

    what: str
    at: float
    client: bytes
    detail: str


class Story:
    """The last event of each key about which something can be told that the index does not say.

    Events lie in pages, and the oldest page goes as a whole: to take single ones out of a long dict takes long.
    """

    def __init__(self) -> None:
        self._pages: deque[dict[tuple[str, str], Event]] = deque([{}], maxlen=PAGES)

    def tell(self, key: str, tenant: str, event: Event) -> None:
        """Remember it as the last thing that happened to that key."""
        if len(key) > MAX_KEY:
            return
        page = self._pages[-1]
        page[tenant, key] = event
        if len(page) >= MAX_EVENTS // PAGES:
            self._pages.append({})

    def of(self, key: str, tenant: str = DEFAULT_TENANT) -> Event | None:
        """What happened to it last, or None if that is not known."""
        name = (tenant, key)
        return next((page[name] for page in reversed(self._pages) if name in page), None)
