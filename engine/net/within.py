"""A bound on a wait that keeps a cancel.

``asyncio.wait_for`` before Python 3.12 forgets it where the answer comes in the same turn of the event loop: who was
told to end goes on, and whoever waits for his end waits for ever (https://github.com/python/cpython/issues/86296).
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import TypeVar

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

T = TypeVar("T")


async def within(work: Awaitable[T], seconds: float | None) -> T:
    """What ``work`` comes to; it is cancelled after so many ``seconds`` (None: it may take for ever).

    Raises ``asyncio.TimeoutError`` then, and what ``work`` raises.
    """
    async with timeout(seconds):
        return await work
