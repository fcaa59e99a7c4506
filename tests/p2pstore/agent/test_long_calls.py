"""Events are lines, the last one is a result or an error, and whoever goes away cancels the call."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from p2pstore.agent import long_calls as module
from p2pstore.agent.long_calls import LongCalls, Progress, Work
from p2pstore.errors import ObjectNotFound
from p2pstore.pull.run import Emit

WAIT = 60.0


class World:
    """A server of one call, whose work a test gives."""

    def __init__(self) -> None:
        self.calls = LongCalls()
        self.work: Work
        self.waits = False
        self.url = ""
        self.session = aiohttp.ClientSession()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        return await self.calls.answer(request, self.work, waits=self.waits)

    async def lines(self) -> list[dict[str, Any]]:
        async with self.session.post(self.url) as answer:
            assert answer.headers["Content-Type"] == "application/x-ndjson"
            return [json.loads(line) async for line in answer.content]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    app = web.Application()
    app.router.add_post("/", made.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await made.session.close()
    await runner.cleanup()


async def test_events_come_in_their_order_and_the_result_last(world: World) -> None:
    async def work(emit: Emit) -> dict[str, Any]:
        for number in range(100):
            emit({"event": "note", "text": str(number)})
        return {"fine": True}

    world.work = work
    *notes, last = await asyncio.wait_for(world.lines(), WAIT)
    assert [each["text"] for each in notes] == [str(number) for number in range(100)]
    assert last == {"event": "result", "fine": True}


@pytest.mark.parametrize(
    ("fault", "told"), [(ObjectNotFound(name="x"), "ObjectNotFound"), (RuntimeError("a bug"), "MooncakeError")]
)
async def test_an_error_is_the_last_line(world: World, fault: Exception, told: str) -> None:
    async def work(_: Emit) -> dict[str, Any]:
        raise fault

    world.work = work
    (last,) = await asyncio.wait_for(world.lines(), WAIT)
    assert (last["event"], last["error"]["type"]) == ("error", told)


async def test_data_follow_their_length_and_are_let_go_when_they_are_sent(world: World) -> None:
    data = bytes(range(256)) * 4096

    async def work(emit: Emit) -> dict[str, Any]:
        sent = asyncio.Event()
        emit({"event": "data", "data": memoryview(data), "sent": sent})
        await sent.wait()
        return {}

    world.work = work
    async with world.session.post(world.url) as answer:
        announced = json.loads(await asyncio.wait_for(answer.content.readline(), WAIT))
        assert announced == {"event": "bytes", "length": len(data)}
        assert await asyncio.wait_for(answer.content.readexactly(len(data)), WAIT) == data
        assert json.loads(await asyncio.wait_for(answer.content.readline(), WAIT)) == {"event": "result"}


async def test_who_goes_away_cancels_the_call(world: World) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def work(_: Emit) -> dict[str, Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()
        return {}

    world.work = work
    call = asyncio.create_task(world.lines())
    await asyncio.wait_for(begun.wait(), WAIT)
    call.cancel()
    await asyncio.wait_for(over.wait(), WAIT)


async def test_a_call_that_only_waits_is_not_said_to_hang(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(module, "FIRST_NOTE_SECONDS", 0.02)
    go_on = asyncio.Event()

    async def work(_: Emit) -> dict[str, Any]:
        await go_on.wait()
        return {}

    world.work, world.waits = work, True
    async with world.session.post(world.url) as answer:
        for _ in range(10):
            assert json.loads(await asyncio.wait_for(answer.content.readline(), WAIT))["event"] == "progress"
        go_on.set()
        assert b'"note"' not in await asyncio.wait_for(answer.content.read(), WAIT)


async def test_many_small_steps_of_any_thread_are_few_events() -> None:
    events: list[dict[str, Any]] = []
    progress = Progress(events.append)

    def steps() -> None:
        for done in range(1000):
            progress.set(done, 1000)
        progress.note("over")

    thread = threading.Thread(target=steps)
    thread.start()
    while not (events and events[-1]["event"] == "note"):  # noqa: ASYNC110 - it is another thread
        await asyncio.sleep(0.01)
    thread.join(WAIT)
    assert 2 <= len(events) < 1000
