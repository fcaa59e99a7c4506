"""An HTTP server for strangers: no version, and room for others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import warnings
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from engine.net import http_server as module
from engine.net import sockets
from engine.net.http_server import MAX_STRANGERS, HttpServer, let_in

WAIT = 60.0
WELCOME = b"GET /welcome HTTP/1.1\r\nHost: x\r\n\r\n"


async def _answer(request: web.Request) -> web.Response:
    if request.path == "/welcome":
        let_in(request)
    if request.path == "/bug":
        raise RuntimeError("a bug")
    if request.path == "/no":
        raise web.HTTPForbidden
    return web.Response(text="hello")


@asynccontextmanager
async def serving(strangers: int = MAX_STRANGERS, app: web.Application | None = None) -> AsyncIterator[int]:
    if app is None:
        app = web.Application()
        app.router.add_get("/{path}", _answer)
    server = HttpServer(app, logger=logging.getLogger(__name__), shutdown_seconds=1.0, strangers=strangers)
    listener = sockets.listen("127.0.0.1", 0)
    await server.start(listener)
    try:
        yield int(listener.getsockname()[1])
    finally:
        await server.close()


class Client:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def say(self, data: bytes) -> bytes:
        """What comes first, at least the head of an answer; nothing when it was closed."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.writer.write(data)
            await self.writer.drain()
            return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT)
        return b""

    async def end(self) -> bytes:
        """What is left until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), WAIT)
        except OSError:
            return b""

    def close(self) -> None:
        self.writer.close()


@pytest.mark.parametrize(
    "request_of",
    [
        WELCOME,
        b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"no request at all\r\n\r\n",
        b"GET /x HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_no_answer_tells_a_version(request_of: bytes) -> None:
    async with serving() as port:
        client = await Client.connect(port)
        head = await client.say(request_of)
        assert head.startswith(b"HTTP/1.")
        assert b"\r\nserver:" not in head.lower()
        assert b"aiohttp" not in head.lower()
        client.close()


@pytest.mark.parametrize(
    ("request_of", "told"),
    [
        (b"GET /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", False),
        (b"GET /x HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", False),
        (b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n", True),
    ],
)
async def test_a_strangers_fault_is_no_defect_in_the_log(
    caplog: pytest.LogCaptureFixture, request_of: bytes, told: bool
) -> None:
    async with serving() as port:
        client = await Client.connect(port)
        assert await client.say(request_of)
        client.close()
    assert bool([record for record in caplog.records if record.levelno >= logging.INFO]) is told


async def test_who_says_nothing_has_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port:
        known = await Client.connect(port)
        assert b"200" in await known.say(WELCOME)
        monkeypatch.setattr(module, "HELLO_SECONDS", 0.3)
        silent, trickling, refused = [await Client.connect(port) for _ in range(3)]
        trickling.writer.write(b"GET /welcome HTTP/1.1\r\nX: ")
        answer = await refused.say(b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not answer or b"403" in answer, "on a slow day its time is over before"
        for client in (silent, trickling, refused):
            await client.end()
            client.close()
        assert await known.reader.readexactly(5) == b"hello"
        assert b"200" in await known.say(WELCOME)
        known.close()


async def test_strangers_push_out_strangers_only() -> None:
    async with serving(strangers=3) as port:
        known = await Client.connect(port)
        assert b"200" in await known.say(WELCOME)
        strangers = [await Client.connect(port) for _ in range(8)]
        for client in strangers[:4]:
            assert await client.end() == b""
        assert await known.reader.readexactly(5) == b"hello"
        assert b"200" in await known.say(WELCOME)
        assert b"200" in await strangers[-1].say(WELCOME)
        for client in (known, *strangers):
            client.close()


async def test_one_more_than_there_is_room_for_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    async with serving() as port:
        clients = [await Client.connect(port) for _ in range(2)]
        for client in clients:
            assert b"200" in await client.say(WELCOME)
        late = await Client.connect(port)
        assert await late.say(WELCOME) == b""
        clients[0].close()
        for _ in range(600):
            again = await Client.connect(port)
            if b"200" in await again.say(WELCOME):
                break
            again.close()
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("its place was not given to another")
        for client in (late, again, *clients):
            client.close()


async def test_nothing_of_an_application_that_ended_is_kept() -> None:
    """aiohttp itself remembers the last thousand handlers behind middlewares."""

    class Owner:
        async def answer(self, _: web.Request) -> web.Response:
            return web.Response(text="hello")

        @web.middleware
        async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
            return await handler(request)

    owners: list[weakref.ref[Owner]] = []
    for _ in range(5):
        owner = Owner()
        app = web.Application(middlewares=[owner.guard])
        app.router.add_get("/welcome", owner.answer)
        async with serving(app=app) as port:
            client = await Client.connect(port)
            assert b"200" in await client.say(WELCOME)
            client.close()
        owners.append(weakref.ref(owner))
        del owner, app
    await asyncio.sleep(0)
    gc.collect()
    assert [each() for each in owners] == [None] * 5


@pytest.mark.parametrize("steps", range(6))
async def test_one_that_is_accepted_in_the_moment_of_the_end_is_closed(steps: int) -> None:
    """Two turns of the loop after it came nobody had it: it stayed open until Python collected it, with a warning."""
    app = web.Application()
    app.router.add_get("/{path}", _answer)
    server = HttpServer(app, logger=logging.getLogger(__name__), shutdown_seconds=1.0)
    listener = sockets.listen("127.0.0.1", 0)
    await server.start(listener)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with socket.create_connection(listener.getsockname(), WAIT) as client:
            for _ in range(steps):
                await asyncio.sleep(0)
            await server.close()
            with contextlib.suppress(ConnectionResetError):  # where it was not accepted at all
                assert await asyncio.to_thread(client.recv, 1) == b""
        gc.collect()
    assert [str(each.message) for each in said] == []
