"""The agent's API, on a socket of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import aiohttp

from p2pstore.agent.agent_server import AgentServer
from p2pstore.agent.jobs import Jobs
from p2pstore.agent.origin_calls import OriginCalls
from p2pstore.hub.hub import Hub
from p2pstore.hub.ranges import Readers
from p2pstore.node import Node
from p2pstore.origins.gathering import Gathering
from p2pstore.pull.get import GetRequest
from p2pstore.pull.run import Emit


class Api:
    """A node behind its API, and a client of it."""

    def __init__(self, node: Node, path: Path) -> None:
        self.node = node
        self.path = path
        self.stopped = asyncio.Event()
        self.jobs = Jobs(path.with_name("jobs.json"), Path("/h"), self._get)
        self.hub = Hub(node.parts, node.supervisor)
        self.copies = self.hub.copies
        self.server = AgentServer(
            node,
            lambda: {"pid": os.getpid(), "home": "/h"},
            self.stopped.set,
            self.jobs,
            Readers(node.parts, self.copies),
            OriginCalls(Gathering(self.hub), node),
        )
        self.session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))

    async def _get(self, wanted: GetRequest, emit: Emit) -> dict[str, Any]:
        return dataclasses.asdict(await self.node.get(wanted, emit))

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.request(method, f"http://agent{path}", **options) as answer:
            return answer.status, json.loads(await answer.read())

    async def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        async with self.session.post(f"http://agent{path}", json=body) as answer:
            assert answer.status == 200
            assert "Server" not in answer.headers
            assert answer.headers["Content-Type"] == "application/x-ndjson"
            return [json.loads(line) async for line in answer.content]
