"""One peer of a pull, as the planner sees it: what it has, what is in flight there, whether there is room for more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from engine.net.backoff import Backoff
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import FEW_CONNECTIONS, FetchFault

MAX_REQUESTS = 64
"""Requests in flight at one peer, however small."""

WINDOW_BYTES = 8 << 20
"""Bytes in flight, shared between the peers: as long as a peer's share is not full, it is asked for more."""

WINDOW_REQUESTS = 16
"""Requests in flight, however large, shared between the peers.

What is asked of one peer is not asked of another that might be idle sooner, so the fewer the better; but each of its
connections wants one on the wire, and where there are few peers one to follow. More than two for each are of no use; a
peer that is alone has them, however many connections.
"""

FAULTS_ALLOWED = 4
"""Faults in a row after which a peer is dropped for good; a fetched chunk forgives them."""

BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 4.0
"""A peer rests for the first after a fault; each further one in a row doubles it, up to the second."""

BACKOFF = Backoff(BACKOFF_SECONDS, MAX_BACKOFF_SECONDS)


class Share(NamedTuple):
    """One peer's share of what may be in flight."""

    requests: int
    bytes: int

    @classmethod
    def among(cls, peers: int) -> Share:
        """With so many peers, one at least; one that is alone may have as many requests as it has use for."""
        return cls(MAX_REQUESTS if peers == 1 else max(1, WINDOW_REQUESTS // peers), WINDOW_BYTES // peers)

    def requests_over(self, connections: int) -> int:
        """How many requests of it a peer has use for: alone two for each, with many peers one for all but one."""
        return min(2 * connections, max(connections - 1, self.requests))


@dataclass
class Peer:
    """Its state for one pull. The planner writes it, and counts across peers."""

    name: str
    have: Bitmap
    distance: int
    origin: bool
    abroad: bool = False  # in another zone, from which one at a time fetches
    connections: int = FEW_CONNECTIONS
    candidates: list[int] = field(default_factory=list)  # of a getter: what it has that may be missing here
    shared: bool = False
    grants: bool = False
    granted: dict[range, int] = field(default_factory=dict)  # runs in flight on grants, until it hears that one is done
    sated: bool = False  # it was told that it has nothing that is missing
    delivered: bool = False  # something of it has arrived
    in_flight: dict[int, range] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)  # when each run was asked for; infinite once cancelled
    slow: bool = False
    bytes_in_flight: int = 0
    faults: int = 0
    not_before: float = 0.0

    @property
    def granting(self) -> bool:
        """Whether it says itself when something may be fetched from it."""
        return self.grants and (self.shared or not self.origin)

    def rests(self, now: float) -> bool:
        """Whether nothing is to be asked of it now: after a fault, or while it is slow and has something in flight."""
        return self.not_before > now or (self.slow and bool(self.in_flight))

    def room(self, share: Share) -> bool:
        """Whether one request more may be in flight here."""
        requests = len(self.in_flight)
        if self.slow or (self.grants and not self.delivered):  # others may come and share it before long
            return not requests
        full = share.requests_over(self.connections)
        return requests < full or (requests < MAX_REQUESTS and self.bytes_in_flight < share.bytes)

    def brought(self) -> None:
        """A run of it arrived: what it failed before is forgiven."""
        self.faults = 0
        self.slow = False
        self.delivered = True

    def failed(self, fault: FetchFault, now: float) -> bool:
        """A run of it failed. Whether it is to take part no more; else it rests, where it is at fault."""
        if fault is FetchFault.UNTRIED:
            return False
        if fault is FetchFault.SLOW:
            self.slow = True
            self.not_before = now + BACKOFF_SECONDS
            return False
        self.faults += 1
        if fault is not FetchFault.LOST or self.faults > FAULTS_ALLOWED:
            return True
        self.not_before = now + BACKOFF.after(self.faults)
        return False
