"""The part of the agent's API that is about versions of objects, and their tags.

::

    GET  /v1/history     ?name=
    GET  /v1/superseded
    GET  /v1/tags        ?name=
    POST /v1/tag         {"name","tags"}
    POST /v1/untag       {"name"}
    POST /v1/watch       {"name","initial"}       lines: a "version" for each new one, until the client goes away
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from p2pstore.agent.bodies import body_of, text_of, texts_of
from p2pstore.pull.run import Emit

if TYPE_CHECKING:
    from p2pstore.node import Node

Stream = Callable[..., Awaitable[web.StreamResponse]]


class VersionCalls:
    """Answers those calls. ``stream`` sends the events of a long one, and its result or error."""

    def __init__(self, node: Node, stream: Stream) -> None:
        self._node = node
        self._stream = stream

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Have a server answer them."""
        router.add_get("/v1/history", self._history)
        router.add_get("/v1/superseded", self._superseded)
        router.add_get("/v1/tags", self._tags)
        router.add_post("/v1/tag", self._tag)
        router.add_post("/v1/untag", self._untag)
        router.add_post("/v1/watch", self._watch)

    async def _history(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._node.history(request.query.get("name", "")))

    async def _superseded(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(await self._node.superseded())

    async def _tags(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._node.tags(request.query.get("name", "")))

    async def _tag(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        return web.json_response(await self._node.tag(text_of(body, "name"), texts_of(body, "tags")))

    async def _untag(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._node.untag(text_of(await body_of(request), "name")))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        name, initial = text_of(body, "name"), bool(body.get("initial"))

        async def work(emit: Emit) -> dict[str, Any]:
            await self._node.watch(name, emit, initial=initial)
            return {}

        return await self._stream(request, work, waits=True)
