"""A connection changes from HTTP to lines, and what comes on it is heard at once, until one side ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pstore.cluster.line_connection import MAX_HEAD_BYTES, SWITCHING, LineConnection, upgrade
from tests.p2pstore.cluster.hostile_peer import answer, hostile

WAIT = 60.0


async def ask(control: str, patience: float = WAIT) -> tuple[asyncio.Transport, bytes] | None:
    host, _, port = control.rpartition(":")
    return await upgrade(host, int(port), "/x?y=1", {"Host": control}, connect=WAIT, patience=patience)


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"{}"),
        answer(b"", "404 Not Found"),
        answer(b"", "101 Switching Protocols", "Upgrade: websocket\r\n"),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        SWITCHING[:-2],
        SWITCHING.replace(b"HTTP/1.1", b"HTTP/9.9"),
        b"x" * (MAX_HEAD_BYTES + 1),
        b"\xff\r\n\r\n",
        b"\r\n\r\n",
        b"",
    ],
)
async def test_whoever_answers_otherwise_changes_to_no_lines(reply: bytes) -> None:
    async with hostile(reply) as control:
        assert await asyncio.wait_for(ask(control), WAIT) is None


async def test_who_says_nothing_is_not_waited_for() -> None:
    async with hostile(b"", stay=True) as control:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask(control, 0.1), WAIT)


async def test_nobody_there() -> None:
    async with hostile(b"") as control:
        pass
    with pytest.raises(OSError, match="onnect"):
        await ask(control)


class End:
    """One end of a connection, and what it heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.changed = asyncio.Event()
        self.fails: Exception | None = None
        self.behind = False
        self.connection = LineConnection(self.hear, behind=lambda: self.behind)

    def hear(self, data: bytes) -> None:
        self.heard += data
        self.changed.set()
        if self.fails is not None:
            raise self.fails

    async def until(self, heard: bytes) -> None:
        async def wait() -> None:
            while self.heard != heard:
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), WAIT)


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End, bytes]]:
    """Both ends of a connection, the one that agreed first, and the request."""
    asked: asyncio.Future[tuple[End, bytes]] = asyncio.get_running_loop().create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            end = End()
            self.transport.write(SWITCHING + b"first\n")  # together, so that the other end reads both at once
            end.connection.begin(self.transport)
            asked.set_result((end, data))

    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    try:
        found = await ask(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        one, request = await asyncio.wait_for(asked, WAIT)
        assert found is not None
        other = End()
        other.connection.begin(*found)
        yield one, other, request
        one.connection.close()
        other.connection.close()
    finally:
        server.close()
        with contextlib.suppress(asyncio.CancelledError):
            await server.wait_closed()


async def test_what_comes_with_the_answer_is_heard_too_and_then_both_ways() -> None:
    async with ends() as (one, other, request):
        assert request.startswith(b"GET /x?y=1 HTTP/1.1\r\n")
        assert b"\r\nUpgrade: mooncake-lines\r\n" in request
        await other.until(b"first\n")
        other.connection.write(b"a\n")
        await one.until(b"a\n")
        one.connection.write(b"b\n")
        await other.until(b"first\nb\n")


async def test_both_hear_of_the_end() -> None:
    async with ends() as (one, other, _):
        other.connection.close()
        for each in (one, other):
            await asyncio.wait_for(each.connection.over, WAIT)
            assert each.connection.error is None
        one.connection.write(b"to nobody\n")
        one.connection.close()


async def test_what_fails_to_hear_ends_it_and_hears_nothing_more() -> None:
    async with ends() as (one, other, _):
        one.fails = ValueError("no word")
        other.connection.write(b"a\n")
        await asyncio.wait_for(one.connection.over, WAIT)
        assert one.connection.error is one.fails
        one.connection.data_received(b"b\n")
        assert one.heard == b"a\n"


async def test_who_had_the_connection_hears_that_it_is_lost() -> None:
    lost: list[Exception | None] = []

    class Before(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    connection = LineConnection(lambda _: None, before=Before())
    error = ConnectionResetError()
    connection.connection_lost(error)
    assert (lost, connection.error, connection.over.done()) == ([error], error, True)


async def test_nothing_is_heard_while_behind_and_then_all_of_it() -> None:
    async with ends() as (one, other, _):
        one.behind = True
        other.connection.write(b"a\n")
        await asyncio.sleep(0.2)
        other.connection.write(b"b\n")
        await asyncio.sleep(0.2)
        assert one.heard == b""
        one.behind = False
        await one.until(b"a\nb\n")
        other.connection.write(b"c\n")
        await one.until(b"a\nb\nc\n")


async def test_who_is_behind_hears_of_the_end_when_it_closes() -> None:
    async with ends() as (one, other, _):
        one.behind = True
        other.connection.write(b"a\n")
        await asyncio.sleep(0.2)
        one.connection.close()
        await asyncio.wait_for(other.connection.over, WAIT)


async def test_what_nobody_takes_is_counted_and_not_waited_for() -> None:
    async with ends() as (one, other, _):
        other.behind = True
        while not one.connection.unsent:
            one.connection.write(b"x" * (1 << 20))
            await asyncio.sleep(0)
        one.connection.close()
        assert one.connection.over.done()
