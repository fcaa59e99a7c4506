"""Manifests as peers get them: many ask for the same one at once, and encoding a large one takes a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from p2pstore.objects.manifest import Manifest

KEPT_BYTES = 64 << 20
"""Of encoded manifests that are kept for those who ask next. The last one is kept, however large it is."""


class EncodedManifests:
    """Encodes one at a time, in a thread, and keeps the latest. Used by one event loop."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._most = kept_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._encoding = asyncio.Lock()

    async def of(self, digest: str, manifest: Manifest) -> bytes:
        """The canonical bytes of the manifest, which has that digest."""
        async with self._encoding:
            data = self._kept.get(digest)
            if data is None:
                data = self._kept[digest] = await asyncio.to_thread(manifest.to_bytes)
                self._size += len(data)
                while self._size > self._most and len(self._kept) > 1:
                    _, oldest = self._kept.popitem(last=False)
                    self._size -= len(oldest)
            self._kept.move_to_end(digest)
            return data
