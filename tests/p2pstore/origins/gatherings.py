"""Nodes of a test that bring what origins have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pstore.hub.hub import Hub
from p2pstore.node import Node
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.origins import gathering as gathering_module
from p2pstore.origins.address import parse_origin
from p2pstore.origins.bringing import bring
from p2pstore.origins.gathering import Gathering

WAIT = 100.0

Make = Callable[..., Gathering]
"""Of a node, and of the URL of the hub that it reads, if it reads one."""


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes what brings for a node, and closes it in the end."""
    async with AsyncExitStack() as stack:

        def maker(node: Node, upstream: str | None = None) -> Gathering:
            hub = Hub(node.parts, node.supervisor, upstream=upstream)
            stack.push_async_callback(hub.close)
            return Gathering(hub)

        yield maker


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for another node looks again soon."""
    monkeypatch.setattr(gathering_module, "LOOK_SECONDS", 0.05)


async def brought(
    one: Gathering, url: str, selection: Selection | None = None, steps: Steps | None = None, name: str = "n"
) -> tuple[Path, str]:
    """Bring an origin: where it lies, and its revision."""
    work = bring(one, parse_origin(url), name, selection or Selection(), steps or Steps())
    return await asyncio.wait_for(work, WAIT)


async def until(what: Callable[[], bool]) -> None:
    """Wait for what nothing tells of."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT
    while not what():
        assert loop.time() < end
        await asyncio.sleep(0.02)
