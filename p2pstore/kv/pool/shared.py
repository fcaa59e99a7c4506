"""Objects that entries have in common: one of its own would take 32 to 64 bytes in each of millions."""

from __future__ import annotations

MAX_IDS = 32_768
"""Ids of clients of which one object is kept."""

MAX_SIZES = 4096
"""Sizes of values of which one is."""


class Shared:
    """The ids of writers, and sizes."""

    def __init__(self) -> None:
        self._ids: dict[bytes, bytes] = {}
        self._sizes: dict[int, int] = {}

    def id(self, client: bytes) -> bytes:
        """The same bytes object for each call of a client."""
        ids = self._ids
        if client not in ids and len(ids) >= MAX_IDS:
            ids.clear()
        return ids.setdefault(client, client)

    def size(self, size: int) -> int:
        """The same number object for equal sizes."""
        sizes = self._sizes
        return sizes.setdefault(size, size) if len(sizes) < MAX_SIZES else sizes.get(size, size)
