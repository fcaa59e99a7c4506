"""The agent's API on its Unix socket, for the command line and for scripts on this machine.

The socket's directory is its user's alone: the file system is the authentication. Calls that take long answer with one
JSON object a line (``application/x-ndjson``), the last of which is a ``result`` or an ``error``; a client that closes
its connection cancels its call.

::

    GET  /v1/status
    POST /v1/stop
    POST /v1/limits      {"upload","download"}: bytes a second, 0 for none; a missing one stays as it is
    POST /v1/register    {"path","name","chunk_size","hash","force","include","exclude","all"}    lines
    POST /v1/register-stream ?name=&hash=&chunk_size=&force=1, with the bytes as its body         lines
    POST /v1/register-many {"items":[[path,name],..]}, and the same but path and name             lines
    POST /v1/register-tagged, -stream-tagged, -many-tagged: the same, and "tags", of a stream ?tag=&tag=
    POST /v1/get         {"name","dest","transport","peers","seed","dry_run","force","wipe"}      lines
    POST /v1/get-tensors the same, and {"tensors"}: patterns                                      lines
    POST /v1/get-chosen  the same, and {"include","exclude","range"}                              lines
    POST /v1/get-update  as a get, and {"update"}                                                 lines
    POST /v1/stream      {"name","transport","peers","range"}          lines, and after one "bytes" those
    POST /v1/verify      {"target"}                                                               lines
    POST /v1/unregister  {"name"}
    POST /v1/unregister-delete  {"name","last_copies"}: and delete the files that this agent wrote
    GET  /v1/cache       every copy that lies here
    POST /v1/cache-pin   {"names","pinned"}: names of objects, or absolute paths
    POST /v1/cache-prune {"older_than","larger_than","keep","only","dry_run","last_copies"}      lines
    GET  /v1/objects     ?prefix=&limit=&after=
    GET  /v1/info        ?name=

``p2pstore.agent.job_calls`` has those about gets in the background, ``version_calls`` those about versions and tags,
``read_calls`` those of programs that read in place, ``origin_calls`` the register of what an origin has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from engine.net import sockets
from engine.net.host_id import view_id
from engine.net.http_server import forget_ended, say_no_version
from engine.net.making import accept_no_more
from p2pstore.agent.bodies import (
    body_of,
    get_request,
    hashing_of,
    items_of,
    path_of,
    selection_of,
    stream_request,
    text_of,
    texts_of,
)
from p2pstore.agent.cache_routes import CacheRoutes
from p2pstore.agent.job_calls import JobCalls
from p2pstore.agent.jobs import Jobs
from p2pstore.agent.long_calls import LongCalls, Progress
from p2pstore.agent.origin_calls import OriginCalls
from p2pstore.agent.read_calls import ReadCalls
from p2pstore.agent.sight import check as check_sight
from p2pstore.agent.sight import look
from p2pstore.agent.version_calls import VersionCalls
from p2pstore.errors import MooncakeError, UsageError, to_wire
from p2pstore.hub.ranges import Readers
from p2pstore.objects.steps import Steps, reported
from p2pstore.objects.waiting import to_its_end
from p2pstore.peers.http_log import http_log
from p2pstore.peers.ways import both_ways, to_json
from p2pstore.pull.run import Emit

if TYPE_CHECKING:
    from p2pstore.node import Node

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 20
"""A call's JSON."""

BLOCK_BYTES = 1 << 20
"""Of a stream that are hashed and written at once."""

_STATUS = {2: 400, 3: 404, 7: 409}


class AgentServer:
    """The API of one agent. ``extra`` adds to the status what only the process knows; ``stop`` begins its end."""

    def __init__(
        self,
        node: Node,
        extra: Callable[[], dict[str, Any]],
        stop: Callable[[], None],
        jobs: Jobs,
        readers: Readers,
        origins: OriginCalls,
    ) -> None:
        self._node = node
        self._extra = extra
        self._stop = stop
        self._calls = LongCalls()
        app = web.Application(middlewares=[_errors], client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/v1/status", self._status)
        app.router.add_post("/v1/stop", self._stop_agent)
        app.router.add_post("/v1/limits", self._limits)
        for tagged in ("", "-tagged"):
            app.router.add_post(f"/v1/register{tagged}", self._register)
            app.router.add_post(f"/v1/register-stream{tagged}", self._register_stream)
            app.router.add_post(f"/v1/register-many{tagged}", self._register_many)
        app.router.add_post("/v1/get", self._get)
        app.router.add_post("/v1/get-tensors", self._get)
        app.router.add_post("/v1/get-chosen", self._get)
        app.router.add_post("/v1/get-update", self._get)
        app.router.add_post("/v1/stream", self._stream_out)
        app.router.add_post("/v1/verify", self._verify)
        app.router.add_post("/v1/unregister", self._unregister)
        app.router.add_post("/v1/unregister-delete", self._unregister_delete)
        CacheRoutes(node, self._calls.answer).add_to(app)
        app.router.add_get("/v1/objects", self._objects)
        app.router.add_get("/v1/info", self._info)
        app.router.add_get("/v1/paths", self._paths)
        JobCalls(jobs, self._calls.answer).add_to(app.router)
        VersionCalls(node, self._calls.answer).add_to(app.router)
        ReadCalls(node.parts, readers, self._calls.answer).add_to(app.router)
        origins.add_to(app.router, self._calls.answer, self._warn)
        app.on_response_prepare.append(say_no_version)
        self._listeners: list[socket.socket] = []
        self._runner = web.AppRunner(
            app, access_log=None, logger=http_log, handler_cancellation=True, shutdown_timeout=1.0
        )

    async def start(self, sock: socket.socket) -> None:
        """Serve on a listening Unix socket, which is closed in the end; on several, if called again."""
        if self._runner.server is None:
            await self._runner.setup()
        self._listeners.append(sock)
        await web.SockSite(self._runner, sock, backlog=sockets.BACKLOG).start()

    async def close(self) -> None:
        """Stop serving; calls under way are cancelled, and their clients told so."""
        self._calls.cancel()
        await accept_no_more(self._listeners)
        try:
            await self._runner.cleanup()
        finally:
            forget_ended()

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({**self._node.status(), **self._extra()})

    async def _paths(self, request: web.Request) -> web.StreamResponse:
        checks = await both_ways(self._node.parts, request.query.get("peer", ""))
        return web.json_response({"checks": to_json(checks)})

    async def _stop_agent(self, _: web.Request) -> web.StreamResponse:
        self._stop()
        return web.json_response({"pid": os.getpid()})

    async def _limits(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        for key, limit in (("upload", self._node.upload_limit), ("download", self._node.download_limit)):
            rate = body.get(key)
            if rate is None:
                continue
            if type(rate) is not int or rate < 0:
                raise UsageError(detail=f"{key} is not a number of bytes a second")
            limit.set(rate)
            log.info("%s limit: %s", key, f"{rate} bytes a second" if rate else "none")
        return web.json_response({"upload": self._node.upload_limit.rate, "download": self._node.download_limit.rate})

    async def _register(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        path, name = path_of(body, "path"), text_of(body, "name")
        hash_name, chunk_size, force = hashing_of(body)
        selection = selection_of(body)

        async def work(emit: Emit) -> dict[str, Any]:
            await asyncio.to_thread(check_sight, body.get("sight"))
            steps = Steps()
            async with reported(steps, emit):
                result = await self._node.register(
                    path,
                    name,
                    hash_name=hash_name,
                    chunk_size=chunk_size,
                    force=force,
                    tags=texts_of(body, "tags"),
                    selection=selection,
                    steps=steps,
                    note=Progress(emit).note,
                )
            self._warn(emit)
            return result

        return await self._calls.answer(request, work)

    async def _register_stream(self, request: web.Request) -> web.StreamResponse:
        query: dict[str, Any] = dict(request.query)
        name = text_of(query, "name")
        query["chunk_size"] = int(query["chunk_size"]) if query.get("chunk_size", "").isdecimal() else None
        hash_name, chunk_size, force = hashing_of(query)
        making = asyncio.ensure_future(asyncio.to_thread(self._node.incoming, name, hash_name, chunk_size))
        handed_over = False

        async def work(emit: Emit) -> dict[str, Any]:
            nonlocal handed_over
            steps = Steps()
            async with reported(steps, emit):
                handed_over = True  # who registers it also removes it where that fails
                result = await self._node.register_incoming(
                    making.result(), name, force=force, steps=steps, tags=request.query.getall("tag", [])
                )
            self._warn(emit)
            return result

        try:
            incoming = await to_its_end(making)
            async for block in request.content.iter_chunked(BLOCK_BYTES):
                await to_its_end(asyncio.to_thread(incoming.write, block))
            return await self._calls.answer(request, work)
        finally:  # the client may go away at each step
            if not handed_over and making.exception() is None:
                await to_its_end(asyncio.to_thread(making.result().abort))

    async def _register_many(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        items = items_of(body.get("items"))
        hash_name, chunk_size, force = hashing_of(body)
        selection = selection_of(body)

        async def work(emit: Emit) -> dict[str, Any]:
            await asyncio.to_thread(check_sight, body.get("sight"))
            progress = Progress(emit)
            result = await self._node.register_many(
                items,
                hash_name=hash_name,
                chunk_size=chunk_size,
                force=force,
                tags=texts_of(body, "tags"),
                selection=selection,
                progress=progress.set,
                note=progress.note,
            )
            self._warn(emit)
            return result

        return await self._calls.answer(request, work)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        wanted = get_request(body)

        async def work(emit: Emit) -> dict[str, Any]:
            await asyncio.to_thread(check_sight, body.get("sight"))
            result = asdict(await self._node.get(wanted, emit))
            seen = None if wanted.dry_run else await asyncio.to_thread(look, result["dest"], follow=False)
            return {**result, "view": view_id(), "seen": seen}

        return await self._calls.answer(request, work)

    async def _stream_out(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        wanted = stream_request(body)

        async def work(emit: Emit) -> dict[str, Any]:
            async def take(data: memoryview) -> None:
                sent = asyncio.Event()
                emit({"event": "data", "data": data, "sent": sent})
                await sent.wait()

            return asdict(await self._node.stream(wanted, emit, take))

        return await self._calls.answer(request, work)

    def _warn(self, emit: Emit) -> None:
        """Whoever publishes something hears why others may not come to it."""
        for doubt in self._node.parts.doubts:
            emit({"event": "note", "text": f"warning: {doubt}"})

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        target = text_of(body, "target")

        async def work(emit: Emit) -> dict[str, Any]:
            await asyncio.to_thread(check_sight, body.get("sight"))
            return await self._node.verify(target, Progress(emit).set)

        return await self._calls.answer(request, work)

    async def _unregister(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._node.unregister(text_of(await body_of(request), "name")))

    async def _unregister_delete(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        gone = self._node.unregister(text_of(body, "name"), delete=True, last_copies=bool(body.get("last_copies")))
        return web.json_response(await gone)

    async def _objects(self, request: web.Request) -> web.StreamResponse:
        try:
            limit = int(request.query.get("limit") or 0)
        except ValueError:
            raise UsageError(detail="limit is not a number") from None
        prefix, after = request.query.get("prefix", ""), request.query.get("after", "")
        return web.json_response(await self._node.listing(prefix, limit=max(0, limit), after=after))

    async def _info(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._node.info(request.query.get("name", "")))


@web.middleware
async def _errors(request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except MooncakeError as error:
        return web.json_response({"error": to_wire(error)}, status=_STATUS.get(error.exit_code, 500))
    except (web.HTTPException, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("a call failed")
        return web.json_response({"error": to_wire(MooncakeError(detail=repr(error)))}, status=500)
    return answer
