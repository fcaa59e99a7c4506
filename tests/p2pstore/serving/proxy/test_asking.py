"""What an instance is asked for one request, and what its answers come to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from p2pstore.serving.events import Kind, Lost
from p2pstore.serving.proxy import asking as module
from p2pstore.serving.proxy.asking import Asking
from p2pstore.serving.proxy.events import Events
from p2pstore.serving.proxy.fleet import Member, parse_instance
from p2pstore.serving.proxy.health import Health
from p2pstore.serving.proxy.options import Options
from p2pstore.serving.proxy.upstream import InstanceFailed, Upstream
from p2pstore.serving.proxy.waits import Waits
from tests.p2pstore.serving.proxy.conftest import happens
from tests.p2pstore.serving.proxy.fake_engine import MODEL, Engine, say_nothing

BODY = b'{"max_tokens": 2, "stream": true}'
HEADERS = {"Content-Type": "application/json"}


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream(Options(MODEL))
    yield made
    await made.close()


def member_of(engine: Engine) -> Member:
    return Member(parse_instance(engine.address), Kind.DECODE, Health(0.0))


async def test_a_stream_comes_in_whole_events_until_its_end(engines: Any, upstream: Upstream) -> None:
    member = member_of(await engines())
    asking, events = Asking(upstream, Waits(time.monotonic), "/v1/completions"), Events()
    answer = await asking.post(member, BODY, HEADERS)
    found = b""
    while (part := await asking.more(member, answer, events)) is not None:
        found += part
    assert events.done
    assert found.count(b"data: ") == 3


async def test_an_answer_that_is_too_long_is_the_instances_fault(
    engines: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=b" " * 2000)

    member = member_of(await engines(behaviour=long))
    asking = Asking(upstream, Waits(time.monotonic), "/v1/completions")
    assert await asking.whole(member, await asking.post(member, BODY, HEADERS)) == b" " * 2000
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)
    with pytest.raises(InstanceFailed, match="longer than 1000 bytes"):
        await asking.whole(member, await asking.post(member, BODY, HEADERS))


async def test_a_wait_that_others_end(engines: Any, upstream: Upstream) -> None:
    engine = await engines(behaviour=say_nothing)
    made: list[Waits] = []

    async def ask() -> None:
        made.append(Waits(time.monotonic))
        await Asking(upstream, made[0], "/v1/completions").post(member_of(engine), BODY, HEADERS)

    task = asyncio.create_task(ask())
    await happens(lambda: engine.busy == 1)
    made[0].moved(Lost(1))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
    assert made[0].ended()[0]
