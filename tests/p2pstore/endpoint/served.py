"""The hub's interface of nodes of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from engine.net import sockets
from p2pstore.endpoint.server import HubServer
from p2pstore.node import Node
from p2pstore.origins.gathering import Gathering
from tests.p2pstore.origins.gatherings import Make, make

__all__ = ["Endpoint", "endpoint", "make"]

Endpoint = Callable[..., Awaitable[tuple[str, Gathering]]]
"""Of a node, and of the URL of the hub that it reads, if it reads one: where it is served, and what brings there."""


@pytest.fixture
async def endpoint(make: Make) -> AsyncIterator[Endpoint]:
    """Serves the interface of a node, and ends that before what brings there."""
    made: list[HubServer] = []

    async def server(node: Node, upstream: str | None = None) -> tuple[str, Gathering]:
        gathering = make(node, upstream)
        made.append(HubServer(gathering))
        await made[-1].start(sockets.listen("127.0.0.1", 0))
        return f"http://{made[-1].address}", gathering

    yield server
    for each in reversed(made):
        await each.close()
