"""Claims: what is to be done once in the cluster, such as reading an origin, one node claims, and the others wait.

A claim hangs on the node's lease: when the node dies, another may claim. It is no lock that data depend on: who could
not claim since nobody answers does the work all the same, and it is done twice.
"""

from __future__ import annotations

import asyncio
import logging
from weakref import WeakValueDictionary

from engine.net.backoff import SOONER, Backoff
from p2pstore.cluster import records
from p2pstore.cluster.registry import Registry
from p2pstore.errors import MooncakeError
from p2pstore.metadata.store import Absent, Delete, HasValue, LeaseLost, Put
from p2pstore.supervisor import Supervisor

log = logging.getLogger(__name__)

RETRIES = Backoff(0.5, 5.0, jitter=SOONER)
"""Pauses before it is tried again to give back what could not be given back."""


async def claim(registry: Registry, what: str) -> bool:
    """Whether this node is to do it. Raises ``LeaseLost``, ``MetadataUnavailable`` or ``MetadataRefused``."""
    key, me = records.claim_key(what), registry.node.encode()
    if await registry.store.commit([Put(key, me, registry.lease)], [Absent(key)]) is not None:
        return True
    held = await registry.store.get(key)
    return held is not None and held.value == me  # of before a restart, or a call that was answered too late


async def claimant(registry: Registry, what: str) -> str:
    """The node that does it; empty where none does."""
    held = await registry.store.get(records.claim_key(what))
    return held.value.decode(errors="replace") if held is not None else ""


async def give_back(registry: Registry, what: str) -> None:
    """It is done, or given up. Raises as ``claim``."""
    key = records.claim_key(what)
    await registry.store.commit([Delete(key)], [HasValue(key, registry.node.encode())])


class Claims:
    """What a node claims, and gives back whatever happens: else others would wait for as long as it lives.

    On the event loop. Calls are to run to their ends, though whoever waits is cancelled.
    """

    def __init__(self, registry: Registry, supervisor: Supervisor) -> None:
        self._registry = registry
        self._supervisor = supervisor
        self._owed: set[str] = set()
        self._returning = False
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def claim(self, what: str) -> bool:
        """Whether this node is to do it now; False without a lease, too. Raises as the function."""
        async with self._turn(what):
            self._owed.discard(what)
            try:
                return await claim(self._registry, what)
            except LeaseLost:
                return False  # this node joins again by itself
            except MooncakeError:
                self._owe(what)  # it may have been claimed before the answer was lost
                raise

    async def give_back(self, what: str) -> None:
        """It is done, or given up. What cannot be given back now is given back later."""
        async with self._turn(what):
            try:
                await give_back(self._registry, what)
            except LeaseLost:
                pass  # it went with the lease
            except MooncakeError as error:
                log.info("the claim of %s is given back later: %s", what, error)
                self._owe(what)

    def _turn(self, what: str) -> asyncio.Lock:
        return self._turns.setdefault(what, asyncio.Lock())

    def _owe(self, what: str) -> None:
        self._owed.add(what)
        if not self._returning:
            self._returning = True
            self._supervisor.start("return of claims", "node", self._return)

    async def _return(self) -> None:
        """Give back what is owed, however long that takes."""
        failures = 0
        try:
            while self._owed:
                await asyncio.sleep(RETRIES.after(failures + 1))
                failures = failures + 1 if await self._fails() else 0
        finally:
            self._returning = False

    async def _fails(self) -> bool:
        for what in sorted(self._owed):
            async with self._turn(what):
                if what not in self._owed:
                    continue  # it was claimed anew meanwhile
                try:
                    await give_back(self._registry, what)
                except LeaseLost:
                    pass  # as above
                except MooncakeError as error:
                    log.debug("the claim of %s is still not given back: %s", what, error)
                    return True
                self._owed.discard(what)
        return False
