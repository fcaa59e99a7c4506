"""Membership: the node's lease, kept alive; and after its loss, everything said again.

The lease hangs on time alone: a node that dies, or stands still for longer than the lease, disappears. When it comes
back, or etcd comes back empty, each of ``on_rejoin`` publishes again what the node holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from engine.net.within import within
from p2pstore.cluster.records import NodeRecord
from p2pstore.cluster.registry import Registry
from p2pstore.errors import MetadataFull, MetadataUnavailable, MooncakeError
from p2pstore.metadata.store import LeaseLost

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 1.0
"""Between attempts to reach the metadata server again."""


Republish = Callable[[], Awaitable[None]]
"""Says again to the metadata store all that one publisher has."""


class Membership:
    """Keeps this node in the metadata store."""

    def __init__(self, registry: Registry, record: NodeRecord, ttl: int, on_rejoin: Iterable[Republish] = ()) -> None:
        """``ttl`` is the lease's length in seconds. Publishers may join ``on_rejoin`` until the node first joins."""
        self.registry = registry
        self.on_rejoin = list(on_rejoin)
        self.ok = False
        self.fault: MooncakeError | None = None
        """Why not all of what this node is and holds is known to others, while it is not."""
        self._record = record
        self._ttl = ttl
        self._wake = asyncio.Event()
        self._joining = asyncio.Lock()
        self._joined = False
        self._left = False

    async def join(self) -> None:
        """Take a lease, unless there is one, and make the node and what it holds known.

        Raises ``MetadataUnavailable`` (``MetadataFull`` among it) or ``MetadataRefused``, and ``LeaseLost`` when the
        lease ends meanwhile or the node has left for good.
        """
        async with self._joining:
            if self._left:
                raise LeaseLost
            self.ok = False
            self._joined = True  # unless somebody finds meanwhile that it is lost again
            try:
                await self._join()
            except BaseException as error:
                self._joined = False
                if isinstance(error, MooncakeError):
                    self._note(error)
                raise
            self.ok = True
            self.fault = None

    async def _join(self) -> None:
        store, lease = self.registry.store, self.registry.lease
        if not lease or not await store.keep_alive(lease):
            self.registry.lease = 0
            self.registry.lease = await store.grant(self._ttl)
        await self.registry.join(self._record)
        for republish in self.on_rejoin:
            await republish()

    async def leased(self, write: Callable[[], Awaitable[T]]) -> T:
        """Do a leased write; join again first when the lease turns out to be gone. Raises ``MetadataUnavailable``."""
        try:
            return await write()
        except LeaseLost:
            pass
        try:
            await self.join()
            return await write()
        except LeaseLost:
            url = self.registry.store.url
            raise MetadataUnavailable(url=url, detail="a new lease was lost at once, too") from None

    def lost(self) -> None:
        """Somebody found the lease gone, or could not say what this node holds: say it all again, and soon."""
        self._joined = False
        self._wake.set()

    async def keep(self) -> None:
        """Renew the lease three times in its life, for ever; join again when it is lost.

        An error that is no answer of the metadata server's goes up to whoever runs this. He may call it again: what the
        node is and holds is then said again at once.
        """
        try:
            await self._keep()
        finally:
            self.ok = False  # nobody renews the lease now
            self.lost()

    async def _keep(self) -> None:
        pause = self._ttl / 3
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._wake.wait(), pause)
            self._wake.clear()
            was_ok = self.ok
            try:
                await self._renew()
                if not was_ok:
                    log.info("metadata server %s answers again, and knows this node", self.registry.store.url)
                self.ok = True
                self.fault = None
                pause = self._ttl / 3
            except MooncakeError as error:
                self._note(error)
                self.ok = False
                # Somebody has to make room first. What is said already must not end with its lease meanwhile.
                pause = self._ttl / 3 if isinstance(error, MetadataFull) else RETRY_SECONDS
            except LeaseLost:
                self._joined = self.ok = False
                pause = RETRY_SECONDS

    async def _renew(self) -> None:
        """Renew the lease. Join where it is gone, or where a join broke off and left a lease on which not all hangs."""
        lease = self.registry.lease
        if lease and await self.registry.store.keep_alive(lease):
            if self._joined:
                return
        elif lease:
            log.warning("the lease is lost; publishing again what this node holds")
        await self.join()

    def _note(self, error: MooncakeError) -> None:
        """Remember what is wrong; it is in the log once, however often it is met."""
        if str(error) != str(self.fault):
            log.warning("%s", error)
        self.fault = error

    async def leave(self) -> None:
        """Revoke the lease, and with it all that hangs on it. Whoever is still at work for the node gets no new one."""
        self._left = True
        async with self._joining:
            if self.registry.lease:
                await self.registry.store.revoke(self.registry.lease)
