"""A get of a file in its order, for somebody who reads it as it comes: verified, and held in memory a window at a time.

The next window comes while the one before is taken. What was taken cannot be taken back, so all that a get does again
after a fault it does within a window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from p2pstore.errors import UsageError
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.chosen_files import chosen_files
from p2pstore.pull.get import GetRequest, GetResult
from p2pstore.pull.pipeline import Goal, Pipeline
from p2pstore.pull.run import Emit
from p2pstore.pull.tensor_survey import ChunksEnd
from p2pstore.tensors.plan import Piece

WINDOW_BYTES = 64 << 20
"""Of chunks that come together; two windows are in memory at a time. No chunk is larger."""

Take = Callable[[memoryview], Awaitable[None]]


class StreamGoal(Goal):
    """Whoever takes a file, or a range of it, from front to back."""

    def __init__(self, request: GetRequest, take: Take) -> None:
        self.taken = 0
        self.size = 0
        self.begun = 0
        """Bytes of the windows before the one that comes now."""
        self._request = request
        self._take = take

    async def reach(self, get: Pipeline) -> None:
        """See ``Goal.reach``: window by window.

        Raises ``UsageError`` where it is no single file, ``NotInObject``, what ``take`` raises, and as
        ``Pipeline.bring``.
        """
        piece = await get.in_thread(self._wanted, get.manifest)
        if piece is None:
            return
        self.size = piece.row
        taking: asyncio.Task[None] | None = None
        before = 0
        try:
            for window in windows(get.manifest, piece):
                chunks: dict[int, memoryview] = {}
                self.begun = before
                await get.bring(ChunksEnd(window, chunks))
                before += sum(map(len, chunks.values()))
                if taking is not None:
                    await taking
                taking = asyncio.create_task(self._hand_over(get.manifest, piece, chunks))
            if taking is not None:
                await taking
        finally:
            if taking is not None:
                taking.cancel()

    def _wanted(self, manifest: Manifest) -> Piece | None:
        """What is to be taken; None where that is empty."""
        wanted = chosen_files(manifest, self._request.choice, self._request.name)
        if wanted.shape.kind != "file":
            name = self._request.name
            raise UsageError(detail=f"{name} is a directory; one file of it can be written there, as {name}/PATH")
        return wanted.pieces[0] if wanted.pieces else None

    async def _hand_over(self, manifest: Manifest, piece: Piece, chunks: dict[int, memoryview]) -> None:
        for number in sorted(chunks):
            chunk = manifest.chunk(number)
            low = max(piece.source, chunk.offset) - chunk.offset
            high = min(piece.end, chunk.offset + chunk.length) - chunk.offset
            await self._take(chunks.pop(number)[low:high])
            self.taken += high - low


def windows(manifest: Manifest, piece: Piece) -> Iterator[Sequence[int]]:
    """The chunks that have something of a piece, in order, as many together as are to be in memory."""
    window: list[int] = []
    size = 0
    for number in manifest.chunks_of(piece.source, piece.row):
        length = manifest.lengths[number]
        if window and size + length > WINDOW_BYTES:
            yield window
            window, size = [], 0
        window.append(number)
        size += length
    if window:
        yield window


async def stream(parts: Parts, request: GetRequest, emit: Emit, take: Take) -> GetResult:
    """Have a file of an object taken as it comes. Raises as ``StreamGoal``."""
    goal = StreamGoal(request, take)

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and goal.size:  # of a window: of all of it is told
            done = min(goal.size, goal.begun if "step" in event else goal.begun + event["done"])
            event = {"event": "progress", "done": done, "total": goal.size, "peers": event.get("peers", 0)}
        emit(event)

    get = Pipeline(parts, goal, request.name, transport=request.transport, peers=request.peers, emit=tell)
    await get.run()
    return GetResult(
        request.name,
        get.manifest.digest,
        "-",
        goal.taken,
        bytes_pulled=get.brought.pulled,
        bytes_reused=get.brought.reused,
        seconds=get.seconds,
        transport=get.brought.transport,
        peers=get.brought.peers,
        files=1,
    )
