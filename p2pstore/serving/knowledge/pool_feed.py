"""The keys of the pool, asked of its master now and then."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable

from engine.net.daemon_pool import DaemonPool
from p2pstore.kv.errors import MasterUnavailable
from p2pstore.kv.master.admin_client import AdminClient
from p2pstore.serving.events import Removed, Stored
from p2pstore.serving.knowledge.pool_blocks import PoolBlocks

EVERY_SECONDS = 5.0
"""Between two lists."""

MAX_KEYS = 500_000
"""Of one list; of more, some are not known."""

log = logging.getLogger(__name__)


class PoolFeed:
    """Tells what comes to the pool and what goes. While its master does not answer, it has nothing."""

    def __init__(
        self,
        admin: str,
        blocks: PoolBlocks,
        told: Callable[[list[Stored | Removed]], None],
        *,
        prefix: str = "",
        every: float = EVERY_SECONDS,
    ) -> None:
        """``admin`` is the ``host:port`` of the master's metrics port; keys that begin with ``prefix`` are listed.

        Raises ``UsageError`` for what is no address.
        """
        self._client = AdminClient(admin)
        self._blocks, self._told, self._prefix, self._every = blocks, told, prefix, every
        self.why_not = ""
        """Why the master does not answer; empty while it does."""

    async def run(self) -> None:
        """Until it is cancelled. After an error it may be called again."""
        loop = asyncio.get_running_loop()
        pool = DaemonPool("pool-keys", 1)
        try:
            while True:
                keys = await loop.run_in_executor(pool, self._listed)
                events = self._blocks.listed(keys)
                if events:
                    self._told(events)
                await asyncio.sleep(self._every)
        finally:
            pool.shutdown()

    def _listed(self) -> list[str]:
        try:
            found = map(_key, itertools.islice(self._client.keys(self._prefix), MAX_KEYS))
            keys = list(found)
        except MasterUnavailable as error:
            if not self.why_not:
                log.warning("what the pool holds is not known: %s", error)
            self.why_not = str(error)
            return []
        self.why_not = ""
        return keys


def _key(document: object) -> str:
    return str(document.get("key", "")) if isinstance(document, dict) else ""
