"""One request to an engine that answers as it should, and to one for each way in which it does not."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import aiohttp
import pytest

from p2pstore.serving.live import stream
from p2pstore.serving.live.stream import Answer, ask
from tests.p2pstore.serving.live.fake_engine import FakeEngine
from tests.ports import closed_port

BODY = {"model": "m", "prompt": "one two three four", "max_tokens": 5}


async def asked(engine: FakeEngine, **how: Any) -> Answer:
    async with engine.serving(), aiohttp.ClientSession() as session:
        return await ask(session, f"{engine.url}/v1/completions", dict(BODY), time.monotonic, **how)


async def test_the_times_of_an_answer_and_what_the_server_counted() -> None:
    engine = FakeEngine()
    engine.gap = 0.02
    answer = await asked(engine)
    assert (answer.error, answer.refused) == ("", False)
    assert (answer.output, answer.prompt, answer.cached) == (5, 4, 2)
    assert answer.ttft is not None
    assert answer.ttft > 0.01
    assert answer.tbt > 0.01
    assert engine.bodies[0]["stream"] is True


def test_the_longest_tenth_of_the_gaps_counts() -> None:
    assert Answer(0.0, [1.0, 2.0, 2.5]).tbt == 1.0
    assert Answer(0.0, [float(number) for number in range(20)] + [21.0, 24.0]).tbt == pytest.approx((3 + 2 + 1) / 3)
    assert Answer(0.0, [1.0]).tbt == 0.0
    assert Answer(5.0, [6.5]).ttft == 1.5


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (503, "status 503: no room here"),
        (404, "status 404: no room here"),
        ("cut", "the stream ended before the answer did"),
        ("garbage", "a piece is no JSON of the interface"),
        ("count", "a piece is no JSON of the interface"),
        ("error", "the server ended it: {'message': 'the engine is dead'}"),
        ("empty", "the answer has no text"),
        ("endless", "a line is longer than"),
        ("silent", "nothing came for 0.2 s"),
    ],
)
async def test_what_goes_wrong_is_told_in_words(fault: str | int, words: str) -> None:
    engine = FakeEngine()
    engine.fault = fault
    answer = await asked(engine, idle=0.2 if fault == "silent" else 60.0)
    assert words in answer.error
    assert not answer.refused


async def test_an_engine_that_dies_is_an_error_of_its_requests() -> None:
    engine = FakeEngine()
    engine.fault = "drop"
    assert (await asked(engine)).error != ""


async def test_what_is_refused_is_no_error() -> None:
    engine = FakeEngine()
    engine.fault = 429
    answer = await asked(engine)
    assert (answer.refused, answer.error) == (True, "")


async def test_a_server_that_takes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CONNECT_SECONDS", 0.3)
    with contextlib.ExitStack() as owned:
        listener = owned.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # as many as the kernel takes for it
            filler = owned.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/completions"
        async with aiohttp.ClientSession() as session:
            answer = await ask(session, url, dict(BODY), time.monotonic)
    assert answer.error == "no connection within 0.3 s"


async def test_a_server_that_is_not_there() -> None:
    async with aiohttp.ClientSession() as session:
        answer = await ask(session, f"http://127.0.0.1:{closed_port()}/v1/completions", dict(BODY), time.monotonic)
    assert answer.error.startswith("no connection: ")
