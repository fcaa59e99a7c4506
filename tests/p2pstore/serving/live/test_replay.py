"""A trace on a fake engine: who is asked what and when, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest

from p2pstore.errors import UsageError
from p2pstore.serving.admission import Objectives
from p2pstore.serving.live.replay import Plan, Target, replay
from p2pstore.serving.simulation.trace import Request
from tests.p2pstore.serving.live.fake_engine import FakeEngine
from tests.ports import closed_port

TRACE = [Request(number / 10, 64 * (number + 1), 8, (1, number + 2)) for number in range(6)]
FAST = Plan(speed=10.0, scale=4.0)


async def test_a_trace_is_played_and_counted() -> None:
    engine = FakeEngine()
    heard: list[int] = []
    async with engine.serving():
        result = await replay(Target(engine.url, key="secret"), TRACE, FAST, progress=heard.append)
    document = result.to_json()
    assert (document["requests"], document["finished"], document["good"], document["failed"]) == (6, 6, 6, 0)
    assert document["output_tokens"] == 6 * 2
    assert document["hit_rate"] == pytest.approx(0.5, abs=0.05)
    assert document["ttft"]["mean"] > 0
    assert heard == [1, 2, 3, 4, 5, 6]
    assert {len(body["prompt"].split()) for body in engine.bodies} == {16, 32, 48, 64, 80, 96}
    assert {body["model"] for body in engine.bodies} == {"the-model"}
    assert set(engine.keys) == {"Bearer secret"}
    assert "secret" not in repr(Target(engine.url, key="secret"))


async def test_requests_are_sent_at_their_times_though_none_is_answered() -> None:
    engine = FakeEngine()
    engine.waits_for = 6
    async with engine.serving():
        result = await replay(Target(engine.url), TRACE, Plan(speed=100.0, scale=8.0))
    assert engine.most == 6
    assert result.span < result.seconds


async def test_more_than_there_is_room_for_are_late_and_said_to_be() -> None:
    engine = FakeEngine()
    engine.gap = 0.05
    async with engine.serving():
        result = await replay(Target(engine.url), TRACE, Plan(speed=1000.0, scale=8.0), streams=2)
    assert engine.most == 2
    assert result.to_json()["late"] > 0
    assert result.to_json()["finished"] == 6


async def test_what_is_refused_what_fails_and_what_is_too_slow() -> None:
    engine = FakeEngine()
    async with engine.serving():
        engine.fault = 429
        refused = (await replay(Target(engine.url), TRACE, FAST)).to_json()
        engine.fault = 500
        failed = (await replay(Target(engine.url), TRACE, FAST)).to_json()
        engine.fault = ""
        slow = (await replay(Target(engine.url), TRACE, Plan(10.0, 4.0, Objectives(1e-9, 1.0)))).to_json()
    assert (refused["rejected"], refused["failed"], refused["finished"]) == (6, 0, 0)
    assert (failed["rejected"], failed["errors"]) == (0, {"status 500: no room here": 6})
    assert (slow["finished"], slow["good"], slow["goodput"]) == (6, 0, 0.0)


async def test_where_it_is_cancelled_nothing_goes_on() -> None:
    engine = FakeEngine()
    engine.fault = "silent"
    async with engine.serving():
        playing = asyncio.create_task(replay(Target(engine.url), TRACE, FAST))
        await asyncio.wait_for(engine.third.wait(), 60)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert [task for task in asyncio.all_tasks() if "replay.<locals>" in repr(task)] == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://h", "is no address of a server"),
        ("nonsense", "is no address of a server"),
        ("http://[::", "is no address of a server"),
        ("", "is no address of a server"),
    ],
)
async def test_an_address_that_is_none(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await replay(Target(url), TRACE, FAST)


async def test_no_server_and_no_model() -> None:
    with pytest.raises(UsageError, match="no server answers at"):
        await replay(Target(f"http://127.0.0.1:{closed_port()}"), TRACE, FAST)
    engine = FakeEngine()
    engine.models = {"data": []}
    async with engine.serving():
        with pytest.raises(UsageError, match="names no model"):
            await replay(Target(engine.url), TRACE, FAST)
        named = await replay(Target(engine.url, "other"), TRACE, FAST)
    assert {body["model"] for body in engine.bodies} == {"other"}
    assert named.to_json()["finished"] == 6


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_the_root_may_be_named_with_or_without_its_version(url: str) -> None:
    assert str(Target(url).place("completions")) == "http://h:1/v1/completions"
    assert str(Target("https://h/team/v1").place("models")) == "https://h/team/v1/models"


@pytest.mark.parametrize(("speed", "scale"), [(0.0, 1.0), (1.0, 0.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_a_plan_that_makes_no_sense(speed: float, scale: float) -> None:
    with pytest.raises(ValueError, match="must be greater than 0"):
        Plan(speed, scale)
