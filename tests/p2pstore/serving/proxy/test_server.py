"""The proxy before fake engines, over real sockets: what it is for, who has to wait, and its end."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

import pytest
from aiohttp import web

from p2pstore.serving.admission import Admission, Objectives
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from tests.p2pstore.serving.proxy.conftest import SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import Engine, say_nothing


async def test_a_prompt_is_computed_on_one_and_decoded_on_another(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    status, said, _ = await proxy.post(max_tokens=5)
    assert status == 200
    assert said["choices"][0]["text"].split() == [f"{decode.port}-{number}" for number in range(5)]
    assert [one.body["max_tokens"] for one in prefill.seen] == [1]
    assert [one.body["max_tokens"] for one in decode.seen] == [5]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_stream_is_passed_on(engines: Any, proxies: Start, path: str) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    events, done = await proxy.stream(path, max_tokens=4)
    assert done
    assert len(events) == 4
    assert (prefill.seen[0].path, decode.seen[0].path) == (path, path)
    assert prefill.seen[0].body["stream"] is False


# Turns


async def test_more_than_it_serves_wait_and_more_than_wait_are_refused(engines: Any, proxies: Start) -> None:
    slow = await engines(behaviour=say_nothing)
    proxy: Running = await proxies([await engines()], [slow], running=1, waiting=1, wait_seconds=60)
    first = asyncio.create_task(proxy.post())
    await happens(lambda: slow.busy == 1)
    second = asyncio.create_task(proxy.post())
    await happens(lambda: proxy.server.turns.waiting == 1)
    status, said, headers = await proxy.post()
    assert (status, said["error"]["type"], said["error"]["code"]) == (429, "rate_limit_error", "busy")
    assert int(headers["Retry-After"]) >= 1
    slow.behaviour = None
    first.cancel()
    assert (await second)[0] == 200


async def test_who_waits_for_too_long_is_told(engines: Any, proxies: Start) -> None:
    slow = await engines(behaviour=say_nothing)
    proxy = await proxies([await engines()], [slow], running=1, waiting=5, wait_seconds=0.2)
    first = asyncio.create_task(proxy.post())
    await happens(lambda: slow.busy == 1)
    status, said, _ = await proxy.post()
    assert status == 429
    assert "no turn came" in said["error"]["message"]
    first.cancel()


async def test_a_client_that_waits_and_leaves_takes_no_turn(engines: Any, proxies: Start) -> None:
    slow = await engines(behaviour=say_nothing)
    proxy: Running = await proxies([await engines()], [slow], running=1, waiting=5)
    first = asyncio.create_task(proxy.post())
    await happens(lambda: slow.busy == 1)
    second = asyncio.create_task(proxy.post())
    await happens(lambda: proxy.server.turns.waiting == 1)
    second.cancel()
    await happens(lambda: proxy.server.turns.waiting == 0)
    first.cancel()
    await happens(lambda: proxy.server.turns.running == 0)


async def test_a_crowd_that_waits_and_leaves_at_once(engines: Any, proxies: Start) -> None:
    """A turn ends, and those who wait are looked at, before they have heard that their clients left."""
    crowd = 2 * sys.getrecursionlimit()
    proxy: Running = await proxies([await engines()], [await engines()], running=1, waiting=crowd)
    server = proxy.server
    await server._turn()
    for end in (lambda: server._end_waits(math.inf), server._end_turn):
        waits = [asyncio.create_task(server._turn()) for _ in range(crowd)]
        await happens(lambda: server.turns.waiting == crowd)
        for wait in waits:
            wait.cancel()
        end()
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ends)
    assert server.turns.running == server.turns.waiting == 0
    assert (await proxy.post())[0] == 200


async def test_what_would_be_too_late_is_refused(engines: Any, proxies: Start) -> None:
    policy = PolicySettings(Placement.LEAST_LOAD, Admission.EARLY, Objectives(ttft=1e-9))
    proxy: Running = await proxies([await engines()], [await engines()], policy=policy)
    status, said, headers = await proxy.post(stream=True)
    assert (status, said["error"]["code"]) == (429, "ttft")
    assert int(headers["Retry-After"]) >= 1
    assert proxy.server.stats.refused["ttft"] == 1


# Its end


async def test_it_lets_requests_end(engines: Any, proxies: Start) -> None:
    decode = await engines(tokens=20, pause=0.02)
    proxy: Running = await proxies([await engines()], [decode])
    stream = asyncio.create_task(proxy.stream())
    await happens(lambda: decode.busy == 1)
    end = asyncio.create_task(proxy.server.drain(SECONDS))
    await asyncio.sleep(0)
    status, said, _ = await proxy.post()
    assert (status, said["error"]["code"]) == (503, "ending")
    assert (await proxy.get("/health"))[0] == 503
    assert (await stream)[1]
    await end


async def test_what_does_not_end_is_told(engines: Any, proxies: Start) -> None:
    async def stuck(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = await engine.begin(request)
        await response.write(engine.event(request, "one "))
        return await say_nothing(engine, request, body)

    decode = await engines(behaviour=stuck)
    proxy: Running = await proxies([await engines()], [decode])
    stream = asyncio.create_task(proxy.stream())
    await happens(lambda: decode.busy == 1)
    await proxy.server.drain(0.1)
    events, done = await stream
    assert not done
    assert events[-1]["error"]["code"] == "ending"
