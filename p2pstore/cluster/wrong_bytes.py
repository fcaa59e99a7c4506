"""Peers that sent this node wrong bytes, by object, so that somebody looks after their memory and disks.

A get bans such a peer for itself, as soon as a hash does not match. This is what people are told of it afterwards.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

MAX_OBJECTS = 256
"""Objects of which suspects are remembered; those of before are forgotten."""

MAX_EACH = 64
"""Suspects of one object."""


class WrongBytes:
    """Remembered while the node runs. Any thread may ask and tell."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.count = 0
        """Chunks that were wrong, of all objects and peers."""

    def add(self, digest: str, peer: str, chunk: int) -> None:
        """A peer sent wrong bytes for a chunk of the object with that manifest."""
        with self._lock:
            self.count += 1
            found = self._chunks.setdefault(digest, {})
            self._chunks.move_to_end(digest)
            if peer in found or len(found) < MAX_EACH:
                found[peer] = chunk
            if len(self._chunks) > MAX_OBJECTS:
                self._chunks.popitem(last=False)

    def of(self, digest: str) -> dict[str, int]:
        """Peers that sent wrong bytes of an object, and the last such chunk of each."""
        with self._lock:
            return dict(self._chunks.get(digest, {}))
