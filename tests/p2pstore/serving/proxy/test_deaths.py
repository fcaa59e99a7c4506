"""What becomes of a request whose instance dies, or hangs, in the middle of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from p2pstore.serving.events import Kind
from p2pstore.serving.proxy import health
from p2pstore.serving.proxy.waits import Waits
from tests.p2pstore.serving.proxy.conftest import SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import (
    PATHS,
    Engine,
    cut_off,
    dying,
    say_nothing,
)


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_breaks_off_says_so(engines: Any, proxies: Start, path: str) -> None:
    decode = await engines(behaviour=dying)
    proxy = await proxies([await engines()], [decode])
    events, done = await proxy.stream(path)
    assert not done
    assert len(events) == 4
    assert events[-1]["error"]["type"] == "server_error"
    assert "decode" in events[-1]["error"]["message"]


async def test_a_stream_of_other_line_ends_is_not_begun_twice(engines: Any, proxies: Start) -> None:
    """Events may end with CRLF: they are tokens all the same, after which nothing begins anew."""

    async def dying_with_crlf(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return await engine.answer(request, body)
        response = await engine.begin(request)
        await response.write(engine.event(request, "one ").replace(b"\n", b"\r\n"))
        await asyncio.sleep(0.05)
        return await cut_off(engine, request, body)

    decodes = [await engines(behaviour=dying_with_crlf) for _ in range(2)]
    proxy = await proxies([await engines()], decodes)
    async with proxy.session.post(proxy.url + PATHS[0], json={"prompt": "x", "stream": True}) as answer:
        text = await answer.text()
    assert text.count("one ") == 1
    assert "instance_failed" in text
    assert sum(len(engine.seen) for engine in decodes) == 1


async def test_an_instance_that_dies_before_a_token_is_replaced_unseen(engines: Any, proxies: Start) -> None:
    """All its requests go elsewhere, and it gets no more of them."""
    dead, alive = await engines(behaviour=say_nothing), await engines()
    proxy: Running = await proxies([await engines()], [dead, alive])
    streams = [asyncio.create_task(proxy.stream(max_tokens=2)) for _ in range(6)]
    await happens(lambda: dead.busy == 3)
    await dead.die()
    for stream in streams:
        events, done = await asyncio.wait_for(stream, SECONDS)
        assert done
        assert len(events) == 2
    assert (await proxy.get("/status"))[1]["decode_nodes"] == [alive.address]
    assert (await proxy.stream())[1]


@pytest.mark.parametrize("kind", [Kind.PREFILL, Kind.DECODE])
async def test_who_finds_that_an_instance_is_dead_blames_no_other(
    engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Its death moves all requests that were there, and so the one that found it: which is at work, and waits for none."""
    monkeypatch.setattr(health, "PROBE_SECONDS", 3600.0)
    dead, alive, other = await engines(), await engines(), await engines()
    sides = ([dead, alive], [other]) if kind is Kind.PREFILL else ([other], [dead, alive])
    proxy: Running = await proxies(*sides)
    await dead.die()
    for stream in (False, True) * 2:
        if stream:
            assert (await proxy.stream())[1]
        else:
            assert (await proxy.post())[0] == 200
    assert {member.place.port: member.failed for member in proxy.server.fleet} == {
        dead.port: 1,
        alive.port: 0,
        other.port: 0,
    }
    assert proxy.server.stats.retries[kind.value] == 1


@pytest.mark.parametrize("failing", ["prefill", "decode"])
async def test_an_instance_that_hangs_is_given_up(
    engines: Any, proxies: Start, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, good, other = await engines(behaviour=say_nothing), await engines(), await engines()
    sides = ([hanging, good], [other]) if failing == "prefill" else ([other], [hanging, good])
    proxy = await proxies(*sides, idle_seconds=0.2)
    look = Waits.look

    def others_have_time(self: Waits, now: float, idle: float) -> bool:
        hangs = self._member is not None and self._member.place.port == hanging.port
        return look(self, now, idle if hangs else 60.0)

    monkeypatch.setattr(Waits, "look", others_have_time)
    for _ in range(2):
        assert (await proxy.stream())[1]
    await happens(lambda: hanging.left >= 1 and not hanging.busy)


async def test_a_stream_in_which_nothing_comes_is_ended(
    engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, look = asyncio.Event(), Waits.look
    monkeypatch.setattr(Waits, "look", lambda self, now, idle: look(self, now, idle if heard.is_set() else 60.0))

    async def stuck(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = await engine.begin(request)
        await response.write(engine.event(request, "one "))
        return await say_nothing(engine, request, body)

    decode = await engines(behaviour=stuck)
    proxy = await proxies([await engines()], [decode], idle_seconds=0.2)
    async with proxy.session.post(proxy.url + PATHS[0], json={"prompt": "x", "stream": True}) as answer:
        assert "one " in (await answer.content.readuntil(b"\n\n")).decode()
        heard.set()
        (last,) = (await answer.text()).split("\n\n")[:-1]
    assert "nothing came for 0.2 s" in json.loads(last.removeprefix("data: "))["error"]["message"]
    await happens(lambda: decode.left == 1)


async def test_events_reach_the_client_whole_however_they_come(engines: Any, proxies: Start) -> None:
    async def crumbs(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return await engine.answer(request, body)
        response = await engine.begin(request)
        for byte in engine.event(request, "one ") + engine.event(request, "two") + b"data: [DONE]\n\n":
            await response.write(bytes([byte]))
        return response

    proxy = await proxies([await engines()], [await engines(behaviour=crumbs)])
    events, done = await proxy.stream()
    assert done
    assert [event["choices"][0]["text"] for event in events] == ["one ", "two"]
