"""What a listener is told of a replica."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.gateway import Claim
from p2pstore.swarm.granter import Grant


@dataclass(frozen=True)
class Availability:
    """The first news of a replica: its address in the peer's segment, and what the peer has.

    ``key`` is what the peer's data plane wants to be shown, empty where it serves everybody. ``listener`` is what the
    peer knows us by; ``shared`` is as in ``Shared``. ``grants``: it grants, to who speaks to it (``PeerClient.say``).
    """

    address: int
    have: Bitmap
    key: str = field(default="", repr=False)
    listener: str = ""
    shared: bool = False
    grants: bool = False


@dataclass(frozen=True)
class Shared:
    """Whether other seeding receivers follow this replica."""

    shared: bool


News = tuple[range, ...] | Shared | Grant | Claim
"""Chunks that are verified now, whether the replica is shared, leave to fetch something of it, or who the gateway of
the node's zone is."""


NOTHING: News = ()
"""What is heard when there is no news for a while."""


@dataclass(frozen=True)
class Queued:
    """So many requests of the listener's wait until the peer has served others."""

    requests: int
