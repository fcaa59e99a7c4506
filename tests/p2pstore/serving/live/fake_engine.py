"""An engine with the OpenAI interface that answers by a script, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web


class FakeEngine:
    """Serves ``/v1/models`` and ``/v1/completions``: ``pieces`` for each request, with ``gap`` seconds between them.

    ``fault`` is what goes wrong: a status, or ``cut``, ``garbage``, ``count``, ``error``, ``silent``, ``empty``,
    ``endless``, ``drop``.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.gap = 0.0
        self.fault: str | int = ""
        self.models: Any = {"data": [{"id": "the-model"}]}
        self.under_way = 0
        self.most = 0
        self.third = asyncio.Event()
        """Set when three are under way at once."""
        self.waits_for = 0
        """So many must be under way at once before any is answered."""
        self._enough = asyncio.Event()
        self.url = ""

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response(self.models)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("Authorization"))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self.under_way == 3:
            self.third.set()
        if self.under_way >= self.waits_for:
            self._enough.set()
        await asyncio.wait_for(self._enough.wait(), 60)
        try:
            return await self._answer(request, body)
        finally:
            self.under_way -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if isinstance(self.fault, int):
            return web.json_response({"error": {"message": "no room here"}}, status=self.fault)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.fault == "silent":
            await asyncio.sleep(3600)
        if self.fault == "endless":
            for _ in range(40):
                await response.write(b"x" * (1 << 16))
        if self.fault == "error":
            await self._say(response, {"error": {"message": "the engine is dead"}})
        for number in range(0 if self.fault == "empty" else body["max_tokens"]):
            await asyncio.sleep(self.gap)
            await self._say(response, {"choices": [{"text": f"w{number}", "finish_reason": None}]})
            if self.fault == "cut":
                return response
            if self.fault == "drop":
                assert request.transport is not None
                request.transport.abort()
            if self.fault == "garbage":
                await response.write(b"data: {nonsense\n\n")
        prompt = len(body["prompt"].split())
        usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": body["max_tokens"]}
        if self.fault == "count":
            usage["completion_tokens"] = 10**400
        await self._say(
            response, {"choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": prompt // 2}}}
        )
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    async def _say(response: web.StreamResponse, document: dict[str, Any]) -> None:
        await response.write(f"data: {json.dumps(document)}\n\n".encode())

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeEngine]:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            await runner.cleanup()
