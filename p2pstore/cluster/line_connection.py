"""Lines both ways over one connection that was HTTP until both sides agreed on it (RFC 9110, 7.8).

A chunk of a swarm is some eight messages between two nodes. As parts of an endless body, each would wake a task in a
turn of the event loop of its own; here what comes is handed on in the turn in which it came, and what is said goes to
the socket at once. The getter asks as it would for the stream of news, with ``Upgrade: mooncake-lines``. Who is of an
earlier version answers as it always does, so that nothing has to be known before of who is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from engine.net.within import within

UPGRADE = "mooncake-lines"
"""What both sides change to."""

SWITCHING = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {UPGRADE}\r\nConnection: Upgrade\r\n\r\n".encode()
"""The answer that agrees."""

MAX_HEAD_BYTES = 8 << 10
"""Of an answer, before its body."""

BEHIND_SECONDS = 0.05
"""How long who is behind with what it hears is left alone, before that is looked at again."""

_END_OF_HEAD = b"\r\n\r\n"


class LineConnection(asyncio.Protocol):
    """One end of such a connection. All calls are made on its event loop's thread."""

    def __init__(
        self,
        hear: Callable[[bytes], None],
        *,
        behind: Callable[[], bool] = lambda: False,
        before: asyncio.BaseProtocol | None = None,
    ) -> None:
        """``hear`` is called with what comes; where it raises, the connection is ``over`` with that ``error``.

        While who hears is ``behind`` nothing is read, or handed on. ``before`` is whose connection it was, which hears
        of its loss.
        """
        self._hear = hear
        self._behind = behind
        self._held = b""  # what has come while who hears was behind
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing more is heard."""
        self.error: Exception | None = None
        self.heard_at = self._loop.time()
        """When something came last, by the event loop's clock."""

    def begin(self, transport: asyncio.Transport, rest: bytes = b"") -> None:
        """Take a connection over, of which ``rest`` was read already."""
        self._transport = transport
        transport.set_protocol(self)
        if rest:
            self.data_received(rest)

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, lines: bytes) -> None:
        """Send these, or forget them where there is nobody any more."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(lines)

    def end(self, error: Exception | None = None) -> None:
        """Nothing more is heard; ``close`` is to follow."""
        if not self.over.done():
            self.error = error
            self.over.set_result(None)

    def close(self) -> None:
        """Close the connection. What the other side does not take is not waited for."""
        self.end()
        if self._transport is not None:
            if self.unsent:
                self._transport.abort()
            else:
                self._transport.close()

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self.over.done():
            return
        self.heard_at = self._loop.time()
        if self._held or self._behind():
            if not self._held:
                self._loop.call_later(BEHIND_SECONDS, self._look_again)
                if self._transport is not None:
                    self._transport.pause_reading()
            self._held += data
            return
        try:
            self._hear(data)
        except Exception as error:  # noqa: BLE001 - who waits for the end raises it
            self.end(error)

    def _look_again(self) -> None:
        """Hand on what was held, unless who hears is behind still."""
        if self.over.done() or self._transport is None:
            return
        self.heard_at = self._loop.time()  # the silence was ours
        if self._behind():
            self._loop.call_later(BEHIND_SECONDS, self._look_again)
            return
        held, self._held = self._held, b""
        self.data_received(held)
        if not self._held:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.end(exc)
        self._transport = None
        if self._before is not None:
            self._before.connection_lost(exc)


class _Answer(asyncio.Protocol):
    """The head of what is answered to a request, and what comes behind it."""

    def __init__(self) -> None:
        self.head: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.head.done() and (_END_OF_HEAD in self.data or len(self.data) > MAX_HEAD_BYTES):
            self.head.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.head.done():
            self.head.set_result(None)


async def upgrade(
    host: str, port: int, path: str, headers: dict[str, str], *, connect: float, patience: float
) -> tuple[asyncio.Transport, bytes] | None:
    """Ask for ``path``, and for lines: the connection and what came of them, or None where the answer is another.

    ``connect`` and ``patience`` bound, in seconds, the connecting and the answer. Raises ``OSError`` or
    ``asyncio.TimeoutError``.
    """
    loop = asyncio.get_running_loop()
    answer = _Answer()
    transport, _ = await within(loop.create_connection(lambda: answer, host, port), connect)
    agreed = False
    try:
        lines = [f"GET {path} HTTP/1.1", f"Upgrade: {UPGRADE}", "Connection: Upgrade"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        transport.write("\r\n".join(lines).encode() + _END_OF_HEAD)
        await asyncio.wait({answer.head}, timeout=patience)
        if not answer.head.done():
            raise asyncio.TimeoutError
        head, end, rest = answer.data.partition(_END_OF_HEAD)
        agreed = bool(end) and _agrees(head)
        return (transport, rest) if agreed else None
    finally:
        if not agreed:
            with contextlib.suppress(OSError):
                transport.abort()


def _agrees(head: bytes) -> bool:
    """Whether an answer changes to lines."""
    status, *lines = head.decode("latin-1").split("\r\n")
    words = status.split(" ")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return words[0].startswith("HTTP/1.") and words[1:2] == ["101"] and fields.get("upgrade", "").lower() == UPGRADE
