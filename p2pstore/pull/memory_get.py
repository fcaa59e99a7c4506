"""A get into memory of the caller's, which is the caller's alone again when it returns or raises."""

from __future__ import annotations

import threading
from typing import Any

from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Buffers, named
from p2pstore.objects.steps import Steps
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.pipeline import End, Pipeline
from p2pstore.pull.run import Emit


class MemoryEnd(End[MemoryDestination]):
    """Buffers, one a file of the object. They are not served: their owner may write to them."""

    lent = True

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = named(buffers)

    def make(
        self,
        manifest: Manifest,
        cancelled: threading.Event,  # noqa: ARG002 - it is quick
        steps: Steps,  # noqa: ARG002 - likewise
    ) -> MemoryDestination:
        """See ``End.make``. Raises ``UsageError`` where the buffers do not fit."""
        return MemoryDestination(manifest, self._buffers)


async def get_into(
    parts: Parts, name: str, buffers: Buffers, *, transport: str, peers: tuple[str, ...], emit: Emit
) -> dict[str, Any]:
    """Pull an object into buffers, in place. Raises as a get, and ``UsageError`` where the buffers do not fit.

    However it ends, a cancel included: afterwards nothing writes to the buffers, and nothing holds them.
    """
    get = Pipeline(parts, MemoryEnd(buffers), name, transport=transport, peers=peers, emit=emit)
    await get.run()
    return {
        "name": name,
        "manifest": get.manifest.digest,
        "size": get.manifest.size,
        "bytes_pulled": get.brought.pulled,
        "bytes_reused": get.brought.reused,
        "seconds": get.seconds,
        "transport": get.brought.transport,
        "peers": get.brought.peers,
    }
