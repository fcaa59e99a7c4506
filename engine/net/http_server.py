"""Serve an application of aiohttp's to strangers: they learn no version, and cannot take all connections.

A connection is a stranger's until one of its requests was let in, of which the application tells (``let_in``).
Strangers have ``HELLO_SECONDS``, and there are ``MAX_STRANGERS`` of them at most, unless a server says otherwise: one
more makes the oldest go.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from aiohttp import hdrs, web, web_app
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_protocol import RequestHandler

from engine.net import addresses, sockets
from engine.net.making import accept_no_more
from engine.net.web_pages import refusal

MAX_STRANGERS = 256
"""Connections of which no request was let in."""

MAX_CONNECTIONS = 8192
"""Connections, idle ones too; one more is closed at once."""

HELLO_SECONDS = 10.0
"""For a stranger's first request that is let in."""

IDLE_SECONDS = 75.0
"""Between two requests of a connection."""

MAX_HEADER_BYTES = 8190
"""Of one header line; aiohttp's own default, named."""


class HttpServer:
    """One application on one listening socket, in one event loop."""

    def __init__(
        self,
        app: web.Application,
        *,
        logger: logging.Logger,
        shutdown_seconds: float,
        cancels: bool = False,
        strangers: int = MAX_STRANGERS,
        open_to_all: bool = False,
        for_pages: tuple[str, ...] = (),
    ) -> None:
        """``cancels``: what is done for a request is cancelled when its client goes away.

        ``strangers``: how many there may be. ``open_to_all``: it asks for no password, so that web pages are refused as
        ``web_pages`` says, but for paths that begin as those ``for_pages`` do.
        """
        app.on_response_prepare.append(say_no_version)
        self._loopback = False
        self._open_to_all = open_to_all
        if open_to_all:
            app.middlewares.insert(0, self._refuse_pages(for_pages))
        self._options: dict[str, Any] = {
            "access_log": None,
            "logger": logger,
            "max_field_size": MAX_HEADER_BYTES,
            "keepalive_timeout": IDLE_SECONDS,
        }
        self._runner = web.AppRunner(
            app, handler_cancellation=cancels, shutdown_timeout=shutdown_seconds, **self._options
        )
        self._most_strangers = strangers
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._strangers: dict[_Connection, None] = {}  # the oldest first

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket, which is closed in the end."""
        if self._open_to_all:
            self._loopback = addresses.as_ip(listener.getsockname()[0]).is_loopback
        await self._runner.setup()
        loop = asyncio.get_running_loop()

        def connection() -> _Connection:
            return _Connection(self, self._runner.server, loop=loop, **self._options)

        self._server = await loop.create_server(connection, sock=listener, backlog=sockets.BACKLOG)

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        if self._server is not None:
            await accept_no_more(self._server.sockets)
            self._server.close()
        try:
            await self._runner.cleanup()
        finally:
            forget_ended()

    def _refuse_pages(self, but: tuple[str, ...]) -> Middleware:
        names = (socket.gethostname(),)

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not request.path.startswith(but):
                said = refusal(request.method, request.headers, loopback=self._loopback, names=names)
                if said:
                    raise web.HTTPForbidden(text=said)
            return await handler(request)

        return guard

    def made(self, connection: _Connection) -> bool:
        """A stranger is there; False where there is no room for it."""
        if len(self._connections) >= MAX_CONNECTIONS:
            return False
        if len(self._strangers) >= self._most_strangers:
            next(iter(self._strangers)).abort()
        self._connections.add(connection)
        self._strangers[connection] = None
        return True

    def known(self, connection: _Connection) -> None:
        """It is no stranger's."""
        self._strangers.pop(connection, None)

    def lost(self, connection: _Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)
        self._strangers.pop(connection, None)


def forget_ended() -> None:
    """Let go of the applications of this process that have ended; to be called when one has.

    aiohttp remembers, for all applications together, what it made of the last thousand handlers behind middlewares.
    Each keeps its application, and so all of a closed node. An application that still serves has its own made again.
    """
    remembered = getattr(web_app, "_cached_build_middleware", None)
    if remembered is not None:  # old releases of aiohttp have none
        remembered.cache_clear()


def let_in(request: web.Request) -> None:
    """A request is let in; its connection may stay."""
    if isinstance(request.protocol, _Connection):
        request.protocol.let_in()


class _Connection(RequestHandler):
    __slots__ = ("_hello", "_owner")

    def __init__(self, owner: HttpServer, manager: Any, **options: Any) -> None:
        super().__init__(manager, **options)
        self._owner = owner
        self._hello: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._owner.made(self):
            self.abort()
            return
        self._hello = asyncio.get_running_loop().call_later(HELLO_SECONDS, self.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.lost(self)
        if self._hello is not None:
            self._hello.cancel()
        super().connection_lost(exc)

    def let_in(self) -> None:
        if self._hello is not None:
            self._hello.cancel()
            self._hello = None
            self._owner.known(self)

    def abort(self) -> None:
        """Close it at once."""
        self._owner.lost(self)
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    def log_exception(self, *args: Any, **options: Any) -> None:
        """As aiohttp has it for defects of ours; strangers' faults, of which anybody can make many, are no news."""
        if isinstance(options.get("exc_info"), HttpProcessingError):
            self.logger.debug(*args, **options)
        else:
            super().log_exception(*args, **options)

    def handle_error(self, *args: Any, **options: Any) -> web.StreamResponse:
        """As aiohttp has it for what is no request, which reaches no application: without its version."""
        found = super().handle_error(*args, **options)
        answer = _Anonymous(status=found.status)
        answer.force_close()
        return answer


class _Anonymous(web.Response):
    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)


async def say_no_version(_: web.Request, response: web.StreamResponse) -> None:
    """Take aiohttp's version and Python's out of an answer."""
    response.headers.popall(hdrs.SERVER, None)
