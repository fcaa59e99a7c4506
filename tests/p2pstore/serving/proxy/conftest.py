from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest_asyncio

from engine.net import sockets
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.proxy.fleet import Place, parse_instance
from p2pstore.serving.proxy.options import Options
from p2pstore.serving.proxy.server import ProxyServer
from tests.p2pstore.serving.proxy.fake_engine import MODEL, Engine

SECONDS = 60
"""For what should take a moment, on a slow day."""

ADMIN = "admin-key-of-the-tests"


class Running:
    """A proxy before fake engines, and a client of it."""

    def __init__(self, server: ProxyServer, url: str, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.url = url
        self.session = session

    async def post(self, path: str = "/v1/completions", **body: Any) -> tuple[int, dict[str, Any], Any]:
        """Status, JSON and headers of an answer that is not streamed."""
        async with self.session.post(self.url + path, json={"model": MODEL, "prompt": "hello", **body}) as answer:
            return answer.status, json.loads(await answer.read()), answer.headers

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.json()

    async def admin(self, path: str, key: str | None = ADMIN, **body: Any) -> tuple[int, dict[str, Any]]:
        headers = {} if key is None else {"X-API-Key": key}
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def stream(self, path: str = "/v1/completions", **body: Any) -> tuple[list[Any], bool]:
        """The events of a stream, each parsed, and whether it was done."""
        events: list[Any] = []
        asked = {"model": MODEL, "prompt": "hello", "stream": True, **body}
        async with self.session.post(self.url + path, json=asked) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            text = (await answer.read()).decode()
        assert text.endswith("\n\n")
        lines = [line.removeprefix("data: ") for line in text.split("\n\n")[:-1]]
        done = bool(lines) and lines[-1] == "[DONE]"
        events = [json.loads(line) for line in (lines[:-1] if done else lines)]
        return events, done

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        await happens(true)


async def happens(true: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


Start = Callable[..., Any]


@pytest_asyncio.fixture
async def engines() -> AsyncIterator[Callable[..., Any]]:
    """Starts engines, and ends them."""
    started: list[Engine] = []

    async def start(**options: Any) -> Engine:
        engine = await Engine(**options).start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
        await engine.close()


@pytest_asyncio.fixture
async def proxies() -> AsyncIterator[Start]:
    """Starts proxies before engines, and ends them."""
    running: list[tuple[ProxyServer, aiohttp.ClientSession]] = []

    async def start(
        prefill: list[Engine], decode: list[Engine], *, wait: bool = True, events: Any = None, **more: Any
    ) -> Running:
        """``events``: by an engine's port, what a ``Place`` has besides."""

        def places(engines: list[Engine]) -> tuple[Place, ...]:
            bootstrap = more.get("p2p", False)
            found = tuple(parse_instance(engine.address) for engine in engines)
            found = tuple(replace(one, **(events or {}).get(one.port, {})) for one in found)
            return tuple(replace(one, bootstrap=one.port) for one in found) if bootstrap else found

        options = Options(
            MODEL,
            prefill=places(prefill),
            decode=tuple(parse_instance(engine.address) for engine in decode),
            **{"admin_key": ADMIN, "policy": PolicySettings(Placement.ROUND_ROBIN), **more},
        )
        server = ProxyServer(options)
        listener = sockets.listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await server.start(listener)
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS))
        running.append((server, session))
        if wait:
            await happens(lambda: all(member.up for member in server.fleet))
        return Running(server, url, session)

    yield start
    for server, session in running:
        await session.close()
        await server.close()
        assert server.turns.running == 0
        assert server.turns.waiting == 0
        assert not server._exchanges
        assert server.bodies.held == 0
        assert not server.parts.dispatcher._riders
        assert not server.parts.dispatcher.policy._requests
        assert [task for task in server.supervisor.report() if task["failures"]] == []
        assert all(member.running == 0 for member in server.fleet)
