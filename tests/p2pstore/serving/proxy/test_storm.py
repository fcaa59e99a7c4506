"""Everything at once: many requests before instances that die, return and misbehave."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.proxy import health
from tests.p2pstore.serving.proxy.conftest import Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import (
    MODEL,
    PATHS,
    REFUSAL,
    answering,
    cut_off,
    dying,
)
from tests.ports import reserved_port

BEHAVIOURS = [
    None,
    cut_off,
    dying,
    answering(500, REFUSAL),
    answering(429, b"busy"),
    answering(200, b"garbage"),
    answering(200, b'data: {"id": "x", "cho', **{"Content-Type": "text/event-stream"}),
]


@pytest.mark.parametrize("placement", list(Placement))
@pytest.mark.parametrize("p2p", [False, True])
async def test_a_storm(
    engines: Any, proxies: Start, placement: Placement, p2p: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances die, return and misbehave under load: each request ends whole or with an error, and nothing is left."""
    monkeypatch.setattr(health, "RETURNS", health.Backoff(0.02, 0.1))
    monkeypatch.setattr(health, "DOUBT_SECONDS", 0.02)
    chance = random.Random(f"{placement}{p2p}")
    fleet = [await engines(tokens=5, pause=0.002, port=reserved_port()) for _ in range(6)]
    policy = PolicySettings(placement, block_tokens=8)
    proxy: Running = await proxies(fleet[:3], fleet[3:], p2p=p2p, policy=policy, running=20, idle_seconds=2.0)
    whole, failed, left = 0, 0, 0

    async def ask(number: int) -> None:
        nonlocal whole, failed, left
        asked = {
            "prompt": "x" * chance.randrange(2000),
            "stream": number % 3 != 0,
            "max_tokens": 5,
            "user": str(number % 4),
        }
        async with proxy.session.post(proxy.url + PATHS[number % 2], json={"model": MODEL, **asked}) as answer:
            if number % 7 == 0:
                left += 1
                return  # without reading it to its end
            text = (await answer.read()).decode()
            if answer.status != 200:
                assert json.loads(text)["error"], text
                failed += 1
            elif not asked["stream"]:
                assert len(json.loads(text)["choices"][0]["text"].split()) == 5
                whole += 1
            else:
                events = [line.removeprefix("data: ") for line in text.split("\n\n")[:-1]]
                assert text.endswith("\n\n")
                if events[-1] == "[DONE]":
                    assert len(events) == 6, events
                    whole += 1
                else:
                    assert json.loads(events[-1])["error"], events
                    failed += 1

    async def ended(more: int) -> None:
        """Trouble goes by requests, not by time: a slow machine must not make it more of each request's life."""
        goal = whole + failed + left + more
        await happens(lambda: whole + failed + left >= goal)

    async def trouble() -> None:
        while True:
            engine = chance.choice(fleet)
            engine.behaviour = chance.choice(BEHAVIOURS)
            await ended(5)
            if chance.random() < 0.3:
                await engine.die()
                try:
                    await ended(5)
                finally:
                    await engine.start()
            engine.behaviour = None

    task = asyncio.create_task(trouble())
    try:
        for group in range(6):
            await asyncio.gather(*(ask(group * 30 + number) for number in range(30)))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert whole + failed + left == 180
    assert whole > failed
    for engine in fleet:
        engine.behaviour = None
    await happens(lambda: proxy.server.fleet.ready)
    assert (await proxy.stream())[1]
    await happens(lambda: not any(engine.busy for engine in fleet))
    await happens(lambda: proxy.server.turns.running == 0)
