"""What happened to a key last, for people who ask why it is not there. Bounded: the oldest is forgotten."""

from __future__ import annotations

from typing import NamedTuple

from engine.rpc.messages import DEFAULT_TENANT

MAX_EVENTS = 20_000
"""Keys of which the last event is remembered; some 10 MB with keys of 120 characters."""

MAX_KEY = 1024
"""Characters of the longest key that is remembered: a few long ones would take as much as all others."""


class Event(NamedTuple):
    """One thing that happened to a key; ``at`` is the pool's clock."""

    what: str
    at: float
    client: bytes
    detail: str


class Story:
    """The last event of each key about which something can be told that the index does not say."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], Event] = {}

    def tell(self, key: str, tenant: str, event: Event) -> None:
        """Remember it as the last thing that happened to that key."""
        if len(key) > MAX_KEY:
            return
        events = self._events
        name = (tenant, key)
        events.pop(name, None)  # so that it is the youngest again
        events[name] = event
        if len(events) > MAX_EVENTS:
            self._forget()

    def _forget(self) -> None:
        """Make room for many: taking the first of a dict, one by one, would pass all that were taken before."""
        self._events = dict(list(self._events.items())[MAX_EVENTS // 8 :])

    def of(self, key: str, tenant: str = DEFAULT_TENANT) -> Event | None:
        """What happened to it last, or None if that is not known."""
        return self._events.get((tenant, key))
