"""The part of the agent's API that registers what lies outside the cluster.

::

    POST /v1/register-origin {"origin","name","chunk_size","hash","force","tags","include","exclude"}     lines
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from p2pstore.agent.bodies import body_of, hashing_of, selection_of, text_of, texts_of
from p2pstore.hub.origin import HubOrigin
from p2pstore.objects.file_system import remove
from p2pstore.objects.names import check_object_name
from p2pstore.objects.reference import check_tag
from p2pstore.objects.steps import Steps, reported
from p2pstore.objects.waiting import to_its_end
from p2pstore.origins.address import parse_origin
from p2pstore.origins.bringing import bring
from p2pstore.origins.gathering import Gathering
from p2pstore.pull.run import Emit

if TYPE_CHECKING:
    from p2pstore.node import Node

Work = Callable[[Emit], Awaitable[dict[str, Any]]]


class OriginCalls:
    """Answers that call."""

    def __init__(self, gathering: Gathering, node: Node) -> None:
        self._gathering = gathering
        self._node = node
        self._stream: Callable[[web.Request, Work], Awaitable[web.StreamResponse]]
        self._warn: Callable[[Emit], None]

    def add_to(
        self,
        router: web.UrlDispatcher,
        stream: Callable[[web.Request, Work], Awaitable[web.StreamResponse]],
        warn: Callable[[Emit], None],
    ) -> None:
        """Have a server answer it: ``stream`` runs what takes long, ``warn`` tells whoever publishes something."""
        self._stream, self._warn = stream, warn
        router.add_post("/v1/register-origin", self._register)

    async def _register(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        origin, name = parse_origin(text_of(body, "origin")), check_object_name(text_of(body, "name"))
        hash_name, chunk_size, force = hashing_of(body)
        selection, tags = selection_of(body), [check_tag(tag) for tag in texts_of(body, "tags")]

        async def work(emit: Emit) -> dict[str, Any]:
            steps = Steps()
            async with reported(steps, emit):
                place, revision = await bring(self._gathering, origin, name, selection, steps)
                try:
                    result = await self._node.register(
                        place,
                        name,
                        hash_name=hash_name,
                        chunk_size=chunk_size,
                        force=force,
                        tags=[*tags, revision],
                        steps=steps,
                    )
                except BaseException:
                    await to_its_end(asyncio.to_thread(remove, place))
                    raise
            self._warn(emit)
            word = "commit" if isinstance(origin, HubOrigin) else "revision"
            return {**result, "path": str(place), word: revision}

        return await self._stream(request, work)
