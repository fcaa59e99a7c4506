"""Waiting for what must happen, without waiting for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata.store import MetadataStore, Put, WatchEvent

WAIT = 30.0
"""Seconds after which something that should have happened did not."""


async def following(events: AsyncIterator[WatchEvent]) -> WatchEvent:
    """The next event of a watch."""
    return await asyncio.wait_for(events.__anext__(), WAIT)  # type: ignore[arg-type]


async def commit_until_it_works(store: MetadataStore, put: Put) -> int:
    """Write through an outage; the revision."""
    loop = asyncio.get_running_loop()
    until = loop.time() + 2 * WAIT
    while loop.time() < until:
        try:
            revision = await store.commit([put])
        except MetadataUnavailable:
            await asyncio.sleep(0.1)
        else:
            assert revision is not None
            return revision
    raise AssertionError("the server did not come back")
