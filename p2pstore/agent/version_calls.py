"""The part of the agent's API that is about versions of objects, and their tags.

::

    GET  /v1/history     ?name=
    GET  /v1/superseded
    GET  /v1/tags        ?name=
    POST /v1/tag         {"name","tags"}
    POST /v1/untag       {"name"}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from p2pstore.agent.bodies import body_of, text_of, texts_of

if TYPE_CHECKING:
    from p2pstore.node import Node


class VersionCalls:
    """Answers those calls."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Have a server answer them."""
        router.add_get("/v1/history", self._history)
        router.add_get("/v1/superseded", self._superseded)
        router.add_get("/v1/tags", self._tags)
        router.add_post("/v1/tag", self._tag)
        router.add_post("/v1/untag", self._untag)

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
