"""The agent's API for what lies on this node: see ``p2pstore.agent.agent_server``."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from p2pstore.agent.bodies import body_of, texts_of
from p2pstore.errors import UsageError
from p2pstore.holding.eviction import Criteria
from p2pstore.holding.prune import PruneRequest
from p2pstore.objects.selection import glob
from p2pstore.pull.run import Emit

if TYPE_CHECKING:
    from p2pstore.node import Node

Work = Callable[[Emit], Awaitable[dict[str, Any]]]

_NAMED = 3
"""Name, place and manifest of a copy."""


class CacheRoutes:
    """Answers them. ``stream`` sends the events of a call that takes long."""

    def __init__(self, node: Node, stream: Callable[[web.Request, Work], Awaitable[web.StreamResponse]]) -> None:
        self._node = node
        self._stream = stream

    def add_to(self, app: web.Application) -> None:
        """Serve what is asked of it there."""
        app.router.add_get("/v1/cache", self._list)
        app.router.add_post("/v1/cache-pin", self._pin)
        app.router.add_post("/v1/cache-prune", self._prune)

    async def _list(self, _: web.Request) -> web.StreamResponse:
        found = await self._node.cache()
        text = await asyncio.to_thread(json.dumps, found)  # of a hundred thousand copies it takes a while
        return web.Response(text=text, content_type="application/json")

    async def _pin(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        pinned = body.get("pinned")
        if not isinstance(pinned, bool):
            raise UsageError(detail="pinned is neither true nor false")
        return web.json_response(await self._node.pin(texts_of(body, "names"), pinned=pinned))

    async def _prune(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        wanted = PruneRequest(
            Criteria(_number(body, "older_than"), int(_number(body, "larger_than")), _keeps(texts_of(body, "keep"))),
            only=_only(body.get("only")),
            dry_run=bool(body.get("dry_run")),
            last_copies=bool(body.get("last_copies")),
        )

        async def work(emit: Emit) -> dict[str, Any]:
            def progress(done: int, total: int) -> None:
                emit({"event": "progress", "done": done, "total": total, "peers": 0})

            return await self._node.prune(wanted, progress)

        return await self._stream(request, work)


def _keeps(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a name is one of those that stay: by itself, as a prefix that ends in ``/``, or by a pattern."""
    fits = [glob(pattern + "**" if pattern.endswith("/") else pattern) for pattern in patterns]
    return lambda name: any(fit.fullmatch(name) for fit in fits)


def _number(body: dict[str, Any], key: str) -> float:
    """A number that is not negative; 0 where it is missing. Raises ``UsageError``."""
    value = body.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(detail=f"{key} is not a number")
    return value


def _only(value: Any) -> tuple[tuple[str, str, str], ...] | None:
    if value is None:
        return None
    good = isinstance(value, list) and all(
        isinstance(each, list) and len(each) == _NAMED and all(isinstance(part, str) for part in each) for each in value
    )
    if not good:
        raise UsageError(detail="only is not a list of a name, a place and a manifest each")
    return tuple((name, place, manifest) for name, place, manifest in value)
