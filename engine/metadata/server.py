"""A drop-in for upstream's HTTP metadata server.

``GET|PUT|DELETE /metadata?key=<key>``; a value is the body, kept verbatim. Answers are upstream's Python server's,
except that a PUT of a key that exists always succeeds, where that one refuses keys with ``rpc_meta`` in them. Source:
upstream's ``http_metadata_server.py`` and ``transfer_metadata_plugin.cpp``.

With ``expire``, a segment that nobody has put for so many seconds is removed once nothing accepts connections at its
handshake address: upstream's clients put their records once and never again, so age alone proves nothing. A record that
belongs to no such address goes by age.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from engine.errors import StorageError
from engine.metadata.kept import MAX_KEY, MAX_VALUE, Full, Records
from engine.net import addresses, sockets
from engine.net.http_server import HttpServer, let_in
from engine.net.within import within

PATH = "/metadata"
DEFAULT_PORT = 8080
"""Upstream's default."""

PROBE_TIMEOUT = 2.0
"""Seconds for a segment's handshake address to accept a connection."""

MAX_PROBES = 32
"""Connections at a time with which old records are checked."""

CHECKS_PER_EXPIRY = 4
CLOSE_TIMEOUT = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class MetadataServer:
    """Serves ``records`` from ``start`` to ``close``, in one event loop."""

    def __init__(self, records: Records, *, expire: float | None = None) -> None:
        """``expire`` is in seconds; without it records stay until they are deleted."""
        self._records = records
        self._expire = expire
        self._server: HttpServer | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.address = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen. Raises ``UsageError`` when the address cannot be had."""
        app = web.Application(client_max_size=MAX_VALUE, middlewares=[_welcome])
        app.router.add_get(PATH, self._get)
        app.router.add_put(PATH, self._put)
        app.router.add_delete(PATH, self._delete)
        app.router.add_get("/health", self._health)
        self._server = HttpServer(app, logger=log, shutdown_seconds=CLOSE_TIMEOUT, open_to_all=True)
        listener = sockets.listen(host, port)
        self.address = addresses.join(host, listener.getsockname()[1])
        await self._server.start(listener)
        if self._expire is not None:
            self._sweeper = asyncio.create_task(self._sweep(self._expire))

    @property
    def url(self) -> str:
        """What clients are given."""
        return f"http://{self.address}{PATH}"

    async def close(self) -> None:
        """Stop serving; the records stay the caller's."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._server is not None:
            await self._server.close()

    async def _get(self, request: web.Request) -> web.Response:
        value = self._records.get(_key(request))
        if value is None:
            return web.Response(status=404, text="metadata not found")
        return web.Response(body=value, content_type="application/json")

    async def _put(self, request: web.Request) -> web.Response:
        key = _key(request)
        value = await request.read()
        try:
            changed = self._records.put(key, value)
        except Full as error:
            return web.Response(status=507, text=str(error))
        except StorageError as error:
            log.warning("%s", error)
            return web.Response(status=507, text=str(error))
        return web.Response(text="metadata updated" if changed else "metadata unchanged")

    async def _delete(self, request: web.Request) -> web.Response:
        try:
            found = self._records.delete(_key(request))
        except StorageError as error:
            log.warning("%s", error)
            return web.Response(status=507, text=str(error))
        return web.Response(text="metadata deleted") if found else web.Response(status=404, text="metadata not found")

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "keys": len(self._records)})

    async def _sweep(self, expire: float) -> None:
        gate = asyncio.Semaphore(MAX_PROBES)
        while True:
            await asyncio.sleep(expire / CHECKS_PER_EXPIRY)
            old = self._records.older_than(expire)
            # Records of one segment share its handshake address, which is asked once.
            endpoints = {key: self._endpoint(key) for key in old}
            asked = list({each for each in endpoints.values() if each is not None})
            alive = dict(zip(asked, await asyncio.gather(*(_accepts(*each, gate) for each in asked)), strict=True))
            still_old = set(self._records.older_than(expire))
            for key, endpoint in endpoints.items():
                if endpoint is not None and alive[endpoint]:
                    self._records.renew(key)
                elif key in still_old:
                    log.info("%s has expired", key)
                    with contextlib.suppress(StorageError):
                        self._records.delete(key)

    def _endpoint(self, key: str) -> tuple[str, int] | None:
        """Where the segment that a record belongs to has its handshake server."""
        name = key if "/rpc_meta/" in key else key.replace("/ram/", "/rpc_meta/", 1)
        try:
            data = json.loads(self._records.get(name) or b"")
            host, port = data["ip_or_host_name"], data["rpc_port"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return (host, port) if isinstance(host, str) and isinstance(port, int) and 0 < port < 65536 else None


@web.middleware
async def _welcome(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whoever asks is no stranger here: there is no password."""
    let_in(request)
    return await handler(request)


async def _accepts(host: str, port: int, gate: asyncio.Semaphore) -> bool:
    async with gate:
        try:
            _, writer = await within(asyncio.open_connection(host, port), PROBE_TIMEOUT)
        except (OSError, asyncio.TimeoutError, UnicodeError):
            return False
        writer.close()
        return True


def _key(request: web.Request) -> str:
    key = request.query.get("key", "")
    if not key.strip():
        raise web.HTTPBadRequest(text="missing key")
    if len(key.encode(errors="replace")) > MAX_KEY:
        raise web.HTTPBadRequest(text=f"a key of more than {MAX_KEY} bytes")
    return key
