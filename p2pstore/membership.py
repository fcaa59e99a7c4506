"""Membership: the node's lease, kept alive; and after its loss, everything said again.

The lease hangs on time alone: a node that dies, or stands still for longer than the lease, disappears. When it comes
back, or etcd comes back empty, ``on_rejoin`` publishes again what the node holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from p2pstore.errors import MetadataRefused, MetadataUnavailable
from p2pstore.metadata.store import LeaseLost
from p2pstore.records import NodeRecord
from p2pstore.registry import Registry

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Between attempts to reach the metadata server again."""


class Membership:
    """Keeps this node in the metadata store."""

    def __init__(
        self, registry: Registry, record: NodeRecord, ttl: int, on_rejoin: Callable[[], Awaitable[None]]
    ) -> None:
        self.registry = registry
        self.ok = False
        self._record = record
        self._ttl = ttl
        self._on_rejoin = on_rejoin
        self._wake = asyncio.Event()

    async def join(self) -> None:
        """Take a lease and make the node known. Raises ``MetadataUnavailable`` or ``MetadataRefused``."""
        self.registry.lease = await self.registry.store.grant(self._ttl)
        await self.registry.join(self._record)
        await self._on_rejoin()
        self.ok = True

    def lost(self) -> None:
        """Somebody was told that the lease is gone: see to it now."""
        self.registry.lease = 0
        self._wake.set()

    async def keep(self) -> None:
        """Renew the lease three times in its life, for ever; join again when it is lost."""
        pause = self._ttl / 3
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            try:
                left = await self.registry.store.keep_alive(self.registry.lease) if self.registry.lease else 0
                if not left:
                    log.warning("the lease is lost; publishing again what this node holds")
                    await self.join()
                if not self.ok:
                    log.info("metadata server %s answers again", self.registry.store.url)
                self.ok = True
                pause = self._ttl / 3
            except (MetadataUnavailable, MetadataRefused) as error:
                if self.ok:
                    log.warning("%s", error)
                self.ok = False
                pause = RETRY_SECONDS
            except LeaseLost:
                self.registry.lease = 0
                pause = RETRY_SECONDS

    async def leave(self) -> None:
        """Revoke the lease, and with it all that hangs on it."""
        if self.registry.lease:
            await self.registry.store.revoke(self.registry.lease)
