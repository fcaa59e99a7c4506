"""Who gives memory to the pool, and whether it is there: present, absent (its index is kept aside), or forgotten.

Nothing here asks a clock: what happened when is told.
"""

from __future__ import annotations

from engine.rpc.messages import OffloadItem
from p2pstore.kv.pool.segments import Mounted
from p2pstore.kv.pool.settings import PoolSettings


class Disk:
    """What a client's disk is asked to take, and to give back."""

    __slots__ = ("capacity", "gone", "offloading", "offloads", "promotions", "remove_all", "used")

    def __init__(self, *, offloading: bool) -> None:
        self.offloading = offloading
        self.gone = False
        self.capacity = 0
        self.used = 0
        self.offloads: dict[tuple[str, str], OffloadItem] = {}
        self.promotions: dict[tuple[str, str], OffloadItem] = {}
        self.remove_all = False


class Client:
    """One client. ``pinged`` is None until it pings for the first time."""

    __slots__ = ("absent_since", "alive", "disk", "heard", "hinted", "host_id", "id", "lost", "pinged", "refused",
                 "segments")  # fmt: skip

    def __init__(self, name: bytes, now: float) -> None:
        self.id = name
        self.heard = now
        self.pinged: float | None = None
        self.hinted = False
        self.lost = False
        """Its last connection is gone."""
        self.refused = False
        """Somebody was told by its machine that nothing listens there any more."""
        self.alive = True
        self.absent_since = 0.0
        self.host_id = ""
        self.segments: dict[bytes, Mounted] = {}
        self.disk: Disk | None = None

    def deadline(self, settings: PoolSettings) -> float:
        """When it counts as absent, unless it pings before, or as forgotten if it is absent."""
        if not self.alive:
            return self.absent_since + settings.keep_absent
        if self.lost and self.refused:
            return self.heard  # either may be a passing trouble, or one between two others; both at once are its end
        if self.hinted:
            return self.heard + min(settings.hinted_ttl, settings.client_ttl)
        return self.heard + (settings.start_ttl if self.pinged is None else settings.client_ttl)

    def silent(self, now: float, settings: PoolSettings) -> bool:
        """Whether it must be taken for one that will not end what it began to write."""
        if not self.alive or self.lost:
            return True
        return self.pinged is not None and now - self.heard > settings.hinted_ttl
