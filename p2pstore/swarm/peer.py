"""One peer of a pull, as the planner sees it: what it has, what is in flight there, whether there is room for more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from p2pstore.objects.bitmap import Bitmap

MAX_REQUESTS = 64
"""Requests in flight at one peer, however small."""

WINDOW_BYTES = 8 << 20
"""Bytes in flight, shared between the peers: as long as a peer's share is not full, it is asked for more."""

WINDOW_REQUESTS = 16
MOST_EACH = 4
"""Requests in flight, however large, shared between the peers; and the most that one peer's share comes to.

What is asked of one peer is not asked of another that might be idle sooner, so the fewer the better; but each of two
connections wants one on the wire, and the only peer there is one to follow.
"""


class Window(NamedTuple):
    """One peer's share of what may be in flight."""

    requests: int
    bytes: int

    @classmethod
    def shared(cls, peers: int) -> Window:
        """With so many peers, one at least."""
        return cls(min(MOST_EACH, max(1, WINDOW_REQUESTS // peers)), WINDOW_BYTES // peers)


@dataclass
class Peer:
    """Its state for one pull. The planner writes it, and counts across peers."""

    name: str
    have: Bitmap
    distance: int
    origin: bool
    candidates: list[int] = field(default_factory=list)  # of a getter: what it has that may be missing here
    shared: bool = False
    over: bool = False  # of an origin: it has offered everything
    asking: bool = False
    ask_after: float = 0.0
    offered: deque[range] = field(default_factory=deque)  # not yet asked for
    accepted: dict[range, range] = field(default_factory=dict)  # runs in flight: the offers that they come from
    extra: set[range] = field(default_factory=set)  # runs in flight that a shared origin did not offer
    done: list[range] = field(default_factory=list)  # to be told with the next Ask
    in_flight: dict[int, range] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)  # when each run was asked for; infinite once cancelled
    slow: bool = False
    bytes_in_flight: int = 0
    faults: int = 0
    not_before: float = 0.0

    def room(self, window: Window) -> bool:
        """Whether one request more may be in flight here."""
        requests = len(self.in_flight)
        if self.slow:
            return not requests
        return requests < window.requests or (requests < MAX_REQUESTS and self.bytes_in_flight < window.bytes)
