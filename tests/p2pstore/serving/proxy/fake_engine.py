"""An engine that speaks vLLM's API on loopback, and does as it is told: for the tests of the proxy."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "models/tiny"

PATHS = ["/v1/completions", "/v1/chat/completions"]

REFUSAL = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}

Behaviour = Callable[["Engine", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """A request that an engine got."""

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    client: object = None
    """Where it came from: the other end of its connection."""


@dataclass
class Engine:
    """Answers with ``tokens`` tokens, ``pause`` seconds apart; ``behaviour`` answers instead where there is one."""

    tokens: int = 3
    pause: float = 0.0
    model: str = MODEL
    host: str = "127.0.0.1"
    behaviour: Behaviour | None = None
    healthy: int = 200
    key: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    left: int = 0
    """Requests whose client left."""
    busy: int = 0
    port: int = 0
    tokenizer: int = 200
    tokenized: int = 0
    hangs: bool = False
    """Whether it accepts connections, and says nothing."""

    async def start(self) -> Engine:
        """Listen at ``port``, or at any; one that is to die and return needs a port that is kept for it."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/completions", self._serve)
        app.router.add_post("/v1/chat/completions", self._serve)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/query", self._query)
        app.router.add_post("/tokenize", self._tokenize)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        self.port = listener.getsockname()[1]
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()
        return self

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def close(self) -> None:
        await self._runner.cleanup()

    async def die(self) -> None:
        """Be gone at once, as after kill -9: every connection is reset, and nobody listens."""
        await self._site.stop()
        server = self._runner.server
        assert server is not None
        for connection in list(server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.sleep(3600)
        return web.Response(status=self.healthy)

    async def _models(self, request: web.Request) -> web.Response:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    async def _query(self, _: web.Request) -> web.Response:
        return web.json_response({"0": {"engine_id": f"engine-{self.port}", "worker_addr": {}}})

    async def _tokenize(self, request: web.Request) -> web.Response:
        """A token a character."""
        self.tokenized += 1
        if self.tokenizer != 200:
            return web.Response(status=self.tokenizer)
        body = await request.json()
        text = body.get("prompt") or "".join(message["content"] for message in body["messages"])
        return web.json_response({"count": len(text), "tokens": [ord(each) for each in text]})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        client = request.transport.get_extra_info("peername") if request.transport is not None else None
        self.seen.append(Seen(request.path, body, request.headers, client))
        self.busy += 1
        try:
            if self.behaviour is not None:
                return await self.behaviour(self, request, body)
            return await self.answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        finally:
            self.busy -= 1

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """As an engine does."""
        count = body.get("max_tokens") or self.tokens
        if not body.get("stream"):
            await asyncio.sleep(self.pause)
            words = " ".join(f"{self.port}-{number}" for number in range(count))
            choice = {
                "index": 0,
                "text": words,
                "message": {"role": "assistant", "content": words},
                "finish_reason": "length",
            }
            usage = {"prompt_tokens": 1, "completion_tokens": count}
            return web.json_response({"id": "x", "choices": [choice], "usage": usage, **self.extra})
        response = await self.begin(request)
        for number in range(count):
            await response.write(self.event(request, f"{self.port}-{number} "))
            await asyncio.sleep(self.pause)
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(b'data: {"id":"x","choices":[],"usage":{"completion_tokens":%d}}\n\n' % count)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def begin(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        return response

    @staticmethod
    def event(request: web.Request, text: str) -> bytes:
        chat = "chat" in request.path
        choice = {"index": 0, "delta": {"content": text}} if chat else {"index": 0, "text": text}
        return b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"


ROLE = b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'


async def cut_off(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Close the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


async def say_nothing(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Take the request, and never answer."""
    await asyncio.sleep(3600)
    raise AssertionError


def answering(status: int, body: Any, **headers: str) -> Behaviour:
    """A behaviour: the same answer to all."""

    async def answer(engine: Engine, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return answer


async def dying(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Two tokens, half of a third, and the end of the connection."""
    if not body.get("stream"):
        return await cut_off(engine, request, body)
    response = await engine.begin(request)
    await response.write(ROLE)
    await response.write(engine.event(request, "one "))
    await response.write(engine.event(request, "two "))
    await response.write(engine.event(request, "three")[:20])
    await asyncio.sleep(0.05)
    return await cut_off(engine, request, body)
