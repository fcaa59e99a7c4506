"""What is about to be held: it stands in the metadata store already, so that others may ask before it can be served."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator

from engine.net.within import within

EXPECTED_SECONDS = 10.0
"""For what is about to be held to be held; whoever asks is told then that it is not there."""


class Expected:
    """The contents that are about to be held, by manifest digest. Used by one event loop."""

    def __init__(self) -> None:
        self._digests: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def during(self, digests: Iterable[str]) -> Iterator[None]:
        """They are about to be held until the end of the block; by then they are, or never will be."""
        mine = Counter(digests)
        self._digests += mine
        try:
            yield
        finally:
            self._digests -= mine
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def over(self, digest: str) -> None:
        """Wait until a content is not about to be held any more, at most for ``EXPECTED_SECONDS``."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._over(digest), EXPECTED_SECONDS)

    async def _over(self, digest: str) -> None:
        while digest in self._digests:
            await self._changed.wait()
