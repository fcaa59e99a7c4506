"""A peer that answers whatever bytes a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
    return head.encode() + body


def lines(*each: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"".join(line + b"\n" for line in each)


@asynccontextmanager
async def hostile(reply: bytes, *, then: bytes = b"", pause: float = 0.0, stay: bool = False) -> AsyncIterator[str]:
    """The control address of a server that answers any request with ``reply``, then repeats ``then`` for ever.

    ``pause`` seconds lie between the repetitions. With ``stay`` it goes silent instead of closing the connection.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
            while then:
                await asyncio.sleep(pause)
                writer.write(then)
                await writer.drain()
                # drain() itself lets nobody else run before the buffer is full, which takes ages byte by byte.
                await asyncio.sleep(0)
            if stay:
                await reader.read()
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
