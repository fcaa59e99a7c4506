"""A prefix that many ask for gets to one more instance, and harms nobody on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from p2pstore.serving import hot
from p2pstore.serving.events import Replicate
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.proxy import copies, server
from tests.p2pstore.serving.proxy.conftest import SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import Engine, cut_off, say_nothing

POLICY = PolicySettings(Placement.KVCACHE_CENTRIC, block_tokens=8)
SHARED = "what all of them begin with, " * 4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "HOT_SECONDS", 0.5)
    monkeypatch.setattr(hot, "HOT_HITS", 2)
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.05)
    look = hot.HotPrefixes.copies

    def when_asked_for_often(self: hot.HotPrefixes, *args: Any) -> list[Replicate]:
        """However long it takes to ask so often: the count begins anew for nothing else."""
        often = any(count >= hot.HOT_HITS for count, _ in self._hits.values())
        return look(self, *args) if often else []

    monkeypatch.setattr(hot.HotPrefixes, "copies", when_asked_for_often)


class Hot:
    """A proxy before two prefill instances, one of which holds what several clients ask for."""

    def __init__(self, proxy: Running, prefills: list[Engine], decode: Engine) -> None:
        self.proxy = proxy
        self.decode = decode
        (self.holder,) = (engine for engine in prefills if engine.seen)
        (self.other,) = (engine for engine in prefills if not engine.seen)
        self.streams: list[asyncio.Task[Any]] = []

    async def ask(self) -> None:
        """One more client, whose prompt is computed when this returns: so the holder is free for the next."""
        self.streams.append(asyncio.create_task(self.proxy.stream(prompt=f"{SHARED}{len(self.streams)}")))
        await happens(lambda: self.decode.busy == len(self.streams))

    async def ask_until(self, so: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + SECONDS
        while not so():
            assert asyncio.get_running_loop().time() < deadline
            await self.ask()
            await asyncio.sleep(0.05)

    @property
    def held(self) -> bool:
        """Whether both hold it, as far as the policy knows."""
        policy = self.proxy.server.parts.dispatcher.policy
        blocks = self.proxy.server.parts.dispatcher._blocks
        match = policy.prefixes.match(next(iter(blocks.values())), (1 << 16) - 1) if blocks else None
        numbers = {one.name: one.number for one in policy.instances()}
        return match is not None and match.holds(numbers[f"prefill/{self.other.address}"])


@pytest_asyncio.fixture
async def started(engines: Any, proxies: Start) -> AsyncIterator[Any]:
    made: list[Hot] = []

    async def start(**options: Any) -> Hot:
        prefills, decode = [await engines(), await engines()], await engines(tokens=20_000, pause=0.05)
        proxy = await proxies(prefills, [decode], policy=POLICY, **options)
        await proxy.stream(prompt=SHARED, max_tokens=1)
        made.append(Hot(proxy, prefills, decode))
        return made[-1]

    yield start
    for each in made:
        for stream in each.streams:
            stream.cancel()
        await asyncio.gather(*each.streams, return_exceptions=True)
        await happens(lambda each=each: each.proxy.server.turns.running == 0)  # type: ignore[misc]


async def test_what_is_hot_is_computed_by_one_more(started: Any) -> None:
    found: Hot = await started(engine_key="the proxy's")
    await found.ask_until(lambda: found.proxy.server.stats.copies > 0)
    seen = found.other.seen[0]  # the client who asked meanwhile may have been sent there already
    assert seen.body["prompt"].startswith(SHARED)
    assert (seen.body["max_tokens"], seen.body["stream"]) == (1, False)
    assert seen.headers["Authorization"] == "Bearer the proxy's"
    assert found.held


async def test_what_is_asked_for_seldom_is_not(started: Any) -> None:
    found: Hot = await started()
    await found.ask()
    await asyncio.sleep(1.0)
    assert found.other.seen == []


async def refuses(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({"error": "Unauthorized"}, status=401)


@pytest.mark.parametrize("behaviour", [cut_off, refuses, say_nothing], ids=["dies", "refuses", "hangs"])
async def test_a_copy_that_fails_is_no_clients_business(
    started: Any, behaviour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "COPY_SECONDS", 0.3)
    found: Hot = await started()
    found.other.behaviour = behaviour
    await found.ask_until(lambda: bool(found.other.seen))
    await happens(lambda: not found.other.busy)
    await happens(
        lambda: not any(member.running for member in found.proxy.server.fleet if found.other.address in member.name)
    )
    assert found.proxy.server.stats.copies == 0
    assert not found.held
    assert not any(stream.done() for stream in found.streams)
    found.other.behaviour = None
    assert (await found.proxy.post(prompt="another", max_tokens=1))[0] == 200


async def test_few_are_made_at_once(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Hot = await started()
    found.other.behaviour = say_nothing
    monkeypatch.setattr(copies, "MOST_AT_ONCE", 1)
    await found.ask_until(lambda: bool(found.other.busy))
    for _ in range(30):
        await found.ask()
        await asyncio.sleep(0.05)
    assert found.other.busy == 1


async def test_who_shows_no_key_gets_nothing_computed_with_the_proxys(started: Any) -> None:
    async def asks_for_a_key(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if "Authorization" in request.headers:
            return await engine.answer(request, body)
        await asyncio.sleep(0.1)  # while it is under way, what is hot is looked for
        return await refuses(engine, request, body)

    found: Hot = await started(engine_key="the proxy's")
    prefills = [found.holder, found.other]
    for engine in prefills:
        engine.behaviour = asks_for_a_key
    for number in range(20):
        assert (await found.proxy.post(prompt=f"{SHARED}{number}"))[0] == 401
    assert not any("Authorization" in seen.headers for engine in prefills for seen in engine.seen)
