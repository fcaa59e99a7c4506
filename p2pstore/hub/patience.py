"""Faults of peers that are looked past: who had something a moment ago may just have died, or have given it up."""

from __future__ import annotations

import asyncio
import logging

from p2pstore.errors import MooncakeError

log = logging.getLogger(__name__)

PEER_PATIENCE_SECONDS = 60.0
"""Of faults of peers alone, after which the last is told. A lease of one that died ends sooner."""

PAUSE_SECONDS = 0.5
"""Before it is looked again who has something."""


class PeerPatience:
    """Of somebody who wants something that peers have. On the event loop.

    It lasts for ``seconds``, or ``PEER_PATIENCE_SECONDS``; for none, the first fault is told at once.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = PEER_PATIENCE_SECONDS if seconds is None else seconds
        self._trouble = 0.0  # since when there are only faults

    def well(self) -> None:
        """Peers answer."""
        self._trouble = 0.0

    async def again(self, fault: MooncakeError) -> None:
        """Pause before another look; raise the fault where there was nothing else for long."""
        now = asyncio.get_running_loop().time()
        self._trouble = self._trouble or now
        if now - self._trouble >= self._seconds:
            raise fault
        log.info("%s; looking again", fault)
        await asyncio.sleep(PAUSE_SECONDS)
