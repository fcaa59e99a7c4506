"""Sees that a file of a part has changed, though nobody reads it: who holds what is told to all."""

from __future__ import annotations

import asyncio

from p2pstore.holding.part_copies import PartCopies
from p2pstore.holding.source_watcher import WATCH_SECONDS


class PartWatcher:
    """Looks at the files of all parts that a node serves, as ``SourceWatcher`` does at those of whole objects."""

    def __init__(self, copies: PartCopies) -> None:
        self._copies = copies

    async def watch(self) -> None:
        """Look now and then, for ever, and serve no more of what changed."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self.look()

    async def look(self) -> None:
        """One look at every file."""
        await self._copies.forget_whole()
        for digest, part in self._copies.all():
            fault = await asyncio.to_thread(part.fault)
            if fault and (digest, part) in self._copies.all():  # not another one by now
                self._copies.lose(digest, fault)
