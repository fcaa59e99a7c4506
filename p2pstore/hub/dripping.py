"""Bytes for a client that hangs up when it hears nothing for a while: the end of each piece is kept back for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

DROP_BYTES = 4096
DROPS = 64
"""Of a piece so many bytes are kept back, so many times, for when the next one does not come soon."""

DROP_SECONDS = 3.0
"""Between drops; huggingface_hub hangs up after 10 s without a byte."""


async def dripping(pieces: AsyncGenerator[memoryview, None]) -> AsyncGenerator[memoryview, None]:
    """The same bytes; the next piece is on its way while one is given out. Closes ``pieces`` in the end."""
    left = memoryview(b"")
    coming = asyncio.ensure_future(anext(pieces, None))
    try:
        while True:
            while not (await asyncio.wait({coming}, timeout=DROP_SECONDS if left else None))[0]:
                yield left[:DROP_BYTES]
                left = left[DROP_BYTES:]
            piece = coming.result()
            if left:
                yield left
            if piece is None:
                return
            coming = asyncio.ensure_future(anext(pieces, None))
            kept = min(len(piece), DROP_BYTES * DROPS)
            if len(piece) > kept:
                yield piece[: len(piece) - kept]
            left = piece[len(piece) - kept :]
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await pieces.aclose()
