"""A listener that changed to lines: it is told news, and heard, over one connection, until that or the replica ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import hdrs, web

from p2pstore.cluster.line_connection import SWITCHING, UPGRADE, LineConnection
from p2pstore.cluster.news import NOTHING, News
from p2pstore.cluster.news_lines import HEARTBEAT_SECONDS
from p2pstore.cluster.words import MAX_WORD_BYTES, from_line
from p2pstore.holding.replica import Listener
from p2pstore.swarm.events import Word

MAX_UNTAKEN_BYTES = 4 << 20
"""Of news that a listener's connection has not taken; one that is slower is cut off, and may come again."""


def changes_to_lines(request: web.Request) -> bool:
    """Whether who asks would like to."""
    return request.headers.get(hdrs.UPGRADE, "").lower() == UPGRADE


class Conversation:
    """With one listener. All calls are made on the event loop's thread."""

    def __init__(
        self,
        request: web.Request,
        listener: Listener,
        tell: Callable[[News | None], bytes],
        hear: Callable[[Word], None],
    ) -> None:
        """The request's connection is taken from aiohttp. ``tell`` makes lines of news, ``hear`` takes what is said."""
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - the request has just come
        self._listener = listener
        self._tell = tell
        self._hear_word = hear
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._told_at = self._loop.time()
        self._connection = LineConnection(self._hear, before=transport.get_protocol())
        transport.write(SWITCHING)
        self._connection.begin(transport)

    async def until_over(self, first: bytes) -> None:
        """Say ``first``, and then all news as they come. Returns when nobody listens, or nothing is left to say."""
        connection = self._connection
        try:
            self._write(first)
            self._listener.on_news = self._flush
            self._flush()
            while not connection.over.done():
                silent = self._loop.time() - self._told_at
                if silent >= HEARTBEAT_SECONDS:
                    self._write(self._tell(NOTHING))
                    silent = 0.0
                await asyncio.wait({connection.over}, timeout=HEARTBEAT_SECONDS - silent)
        finally:
            self._listener.on_news = None
            connection.close()

    def _flush(self) -> None:
        """There are news, which are said at once."""
        news = self._listener.news.drain()
        if news:
            self._write(b"".join(map(self._tell, news)))
        if None in news or self._connection.unsent > MAX_UNTAKEN_BYTES:
            self._connection.end()

    def _write(self, lines: bytes) -> None:
        self._told_at = self._loop.time()
        self._connection.write(lines)

    def _hear(self, data: bytes) -> None:
        """Raises ``ValueError`` for what is no word, which ends the conversation."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line:
                self._hear_word(from_line(line))
        if len(self._rest) > MAX_WORD_BYTES:
            raise ValueError("a word that is too long")
