"""The sample: bytes that say nothing, which a node serves for a while to whoever tries the ways to it.

A way on which small packets pass is not proved: data go in large ones. So those who try it move as much as one request
of a get does.
"""

from __future__ import annotations

import asyncio
import contextlib

from engine.errors import MooncakeError
from engine.memory.buffers import MemoryBuffer
from engine.serving.segment_server import SegmentServer

SAMPLE_BYTES = 4 << 20
"""As much as one run of a get."""

SERVED_SECONDS = 120.0
"""How long it is served after somebody last asked for it."""


class Sample:
    """Registered when somebody asks for it, and given up when nobody does. Runs on the event loop."""

    def __init__(self, engine: SegmentServer) -> None:
        self._engine = engine
        self._address = 0
        self._turn = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def address(self) -> int:
        """Where it is served, for ``SERVED_SECONDS`` from now on at least. Raises as ``SegmentServer.register``."""
        async with self._turn:
            if not self._address:
                buffer = MemoryBuffer("sample", bytes(SAMPLE_BYTES))
                self._address = await asyncio.to_thread(self._engine.register, buffer)
            if self._end is not None:
                self._end.cancel()
            self._end = asyncio.get_running_loop().call_later(SERVED_SECONDS, self._give_up)
            return self._address

    def close(self) -> None:
        """The node ends, and the engine with it."""
        if self._end is not None:
            self._end.cancel()
        if self._ending is not None:
            self._ending.cancel()

    def _give_up(self) -> None:
        self._end = None
        self._ending = asyncio.get_running_loop().create_task(self._unregister(), name="end of the sample")

    async def _unregister(self) -> None:
        async with self._turn:
            if self._end is None and self._address:
                address, self._address = self._address, 0
                with contextlib.suppress(MooncakeError):  # the engine is being closed
                    await asyncio.to_thread(self._engine.unregister, address)
