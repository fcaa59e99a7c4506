"""Sees that a file of a part has changed, though nobody reads it: who holds what is told to all."""

from __future__ import annotations

import asyncio

from p2pstore.holding.publisher import Publisher
from p2pstore.holding.source_watcher import WATCH_SECONDS


class PartWatcher:
    """Looks at the files of all parts that a node serves, as ``SourceWatcher`` does at those of whole objects."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def watch(self) -> None:
        """Look now and then, for ever, and serve no more of what changed."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self.look()

    async def look(self) -> None:
        """One look at every file."""
        for digest, part in self._publisher.parts():
            fault = await asyncio.to_thread(part.fault)
            if fault and (digest, part) in self._publisher.parts():  # not another one by now
                self._publisher.lose_part(digest, fault)
