"""The source watcher: looks at every registered file now and then, and has what changed given up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from engine.errors import StorageError
from engine.memory.file_spans import FileSpan
from p2pstore.holding.catalog import Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.looks import look_at_each
from p2pstore.holding.same_content import same_files
from p2pstore.objects.source import renumbered

log = logging.getLogger(__name__)

WATCH_SECONDS = 2.0
"""How often every registered file is looked at; longer when a look takes more than a twentieth of that."""

LOOKED_AT_ONCE = 256
"""Holdings that a thread looks at before what it found is acted on."""


class SourceWatcher:
    """Looks at the files of holdings. It runs on the event loop; the looks are in threads."""

    def __init__(
        self,
        holdings: Holdings,
        on_changed: Callable[[Holding, str], Awaitable[None]],
        on_touched: Callable[[Holding], None],
    ) -> None:
        """``on_changed`` is called after a holding was given up because its files changed, with the reason.

        ``on_touched`` is called for a holding that has files that were touched, at each look until their stamps are
        new.
        """
        self._holdings = holdings
        self._on_changed = on_changed
        self._on_touched = on_touched
        self._to_tell: list[tuple[Holding, str]] = []  # given up, and ``on_changed`` has not returned yet

    async def watch(self) -> None:
        """Look at every file now and then, for ever, and give up what changed.

        What changed is served no more at once, whether or not the catalog and ``on_changed`` go along; they are asked
        again at each look until they do. An error of ``on_changed`` goes up to whoever runs this, who may call it
        again.
        """
        pause = WATCH_SECONDS
        while True:
            await self._holdings.suspects.wait(pause)
            began = time.monotonic()
            await self._holdings.forget_again()
            await self.look()
            pause = max(WATCH_SECONDS, 20 * (time.monotonic() - began))

    async def look(self) -> None:
        """One look at every file. Between looks nothing may hold on to a holding, so that what it held can be freed."""
        there = [holding for holding in self._holdings if holding.spans]
        unread = self._holdings.suspects.take_unread()
        for first in range(0, len(there), LOOKED_AT_ONCE):
            batch = there[first : first + LOOKED_AT_ONCE]
            faults, touched = await asyncio.to_thread(look_at_each, batch, unread)
            for number in touched:
                self._on_touched(batch[number])
            for number, fault in faults.items():
                holding = batch[number]
                if holding in self._holdings and not await self._is_the_same(holding):
                    log.warning("%s is withdrawn: %s: %s", holding.name, holding.place, fault)
                    self._to_tell.append((holding, fault))
                    await self._holdings.give_up(holding, fault)
        await self._tell()

    async def _is_the_same(self, holding: Holding) -> bool:
        """Whether files whose numbers alone are others hold what they held; their numbers then count no more."""
        root, manifest = holding.root, self._holdings.manifest(holding.digest)
        if root is None or manifest is None or not await asyncio.to_thread(renumbered, holding.spans):
            return False
        spans = await asyncio.to_thread(same_files, root, manifest)
        if spans is None or holding not in self._holdings:
            return False
        log.info("%s: the inode numbers changed, and the content did not", holding.place)
        spans = tuple(FileSpan(s.path, s.size, s.stamp.unnumbered() if s.stamp else None) for s in spans)
        try:
            await self._holdings.put([(Holding(holding.record, holding.role, root, spans), manifest)])
        except StorageError as error:
            log.warning("%s is not served any more: %s", holding.place, error)
            return False
        return True

    async def _tell(self) -> None:
        """Call ``on_changed`` for all that was given up. One that fails keeps no other from being told."""
        failed: Exception | None = None
        for pair in list(self._to_tell):
            try:
                await self._on_changed(*pair)
            except Exception as error:  # noqa: BLE001 - raised below, when the others have been told
                failed = error
            else:
                self._to_tell.remove(pair)
        if failed is not None:
            raise failed
