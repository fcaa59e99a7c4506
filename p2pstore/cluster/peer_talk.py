"""A getter's end of a conversation with a peer: it hears news of a replica, and says words, over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pstore.cluster.line_connection import LineConnection
from p2pstore.cluster.news_lines import HEARTBEAT_SECONDS, NewsReader, Told
from p2pstore.errors import PeerStalled, PeerUnreachable
from p2pstore.objects.file_system import words

SILENCE_SECONDS = 4 * HEARTBEAT_SECONDS
"""After so long without a line the peer counts as gone."""

MAX_UNSAID_BYTES = 256 << 10
"""Of words that a peer's connection has not taken: some thousand. It gives no grant before the last was answered."""

ENDED = "it ended its news of the object"

Say = Callable[[bytes], bool]
"""Says lines to a peer; False where more of them wait than should."""


class PeerTalk:
    """With one peer about one object of so many ``chunks``. All calls are made on the event loop's thread."""

    def __init__(
        self, control: str, chunks: int, hear: Callable[[Told, Say], None], behind: Callable[[], bool]
    ) -> None:
        """``hear`` is called with what the peer tells, and what says lines to it; nothing is read while ``behind``."""
        self._control = control
        self._reader = NewsReader(control, chunks)
        self._hear = hear
        self._connection = LineConnection(self._heard, behind=behind)

    async def run(self, transport: asyncio.Transport, rest: bytes) -> None:
        """Take over a connection, of which ``rest`` was read, until the peer withdraws the object.

        Raises ``PeerUnreachable``, ``PeerStalled`` or ``RemoteProtocolError``, ``PeerWithdrew`` where the peer says
        why, and what ``hear`` raises.
        """
        connection = self._connection
        loop = asyncio.get_running_loop()
        try:
            connection.begin(transport, rest)
            while not connection.over.done():
                silent = loop.time() - connection.heard_at
                if silent >= SILENCE_SECONDS:
                    raise PeerStalled(peer=self._control, seconds=SILENCE_SECONDS)
                await asyncio.wait({connection.over}, timeout=SILENCE_SECONDS - silent)
        finally:
            connection.close()
        if isinstance(connection.error, OSError):
            raise PeerUnreachable(peer=self._control, detail=words(connection.error))
        if connection.error is not None:
            raise connection.error
        if not self._reader.withdrawn:
            raise PeerUnreachable(peer=self._control, detail=ENDED)

    def _heard(self, data: bytes) -> None:
        for told in self._reader.read(data):
            self._hear(told, self._say)
        if self._reader.withdrawn:
            self._connection.end()

    def _say(self, lines: bytes) -> bool:
        self._connection.write(lines)
        return self._connection.unsent <= MAX_UNSAID_BYTES
