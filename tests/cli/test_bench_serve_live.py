"""``bench serve --live`` on a fake engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Mooncake
from tests.p2pstore.serving.live.fake_engine import FakeEngine
from tests.ports import closed_port

SMALL = ("--generate", "conversation", "--requests", "8", "--speed", "100", "--scale", "64")


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    made = FakeEngine()
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with made.serving():
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield made
    over.set()
    thread.join(60)


def test_people_see_a_row_for_each_speed(mooncake: Mooncake, engine: FakeEngine) -> None:
    done = mooncake("bench", "serve", *SMALL, "--speed", "100,200", "--live", engine.url)
    assert (done.returncode, done.stderr) == (0, "")
    heading, first, second = done.stdout.splitlines()
    assert heading.split()[:4] == ["Speed", "Requests", "Served", "TTFT"]
    assert (first.split()[:3], second.split()[:3]) == (["100", "8", "8"], ["200", "8", "8"])


def test_scripts_get_a_document(mooncake: Mooncake, engine: FakeEngine) -> None:
    # What is good on a machine that stands still for some seconds is no matter of this test.
    lenient = ("--ttft", "100", "--tbt", "100")
    done = mooncake("bench", "serve", *SMALL, *lenient, "--live", engine.url, "--json")
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["requests"], row["good"], row["scale"]) == (8, 8, 64)
    done = mooncake("bench", "serve", *SMALL, "--live", engine.url, "--quiet")
    assert done.stdout.startswith("live 100 ")


def test_failures_are_said(mooncake: Mooncake, engine: FakeEngine) -> None:
    engine.fault = 500
    done = mooncake("bench", "serve", *SMALL, "--live", engine.url)
    assert done.returncode == 0
    assert "warning: 8 of 8 requests failed: status 500: no room here" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--live", "nonsense"), "is no address of a server"),
        (("--live", "http://127.0.0.1:1", "--policy", "random"), "--policy says what is simulated"),
        (("--live", "http://127.0.0.1:1", "--plot", "x.png"), "--plot says what is simulated"),
        (("--live", "http://127.0.0.1:1", "--scale", "0"), "a scale must be greater than 0"),
        (("--live", "http://127.0.0.1:1", "--speed", "0"), "a speed must be greater than 0"),
        (("--live", "http://127.0.0.1:1", "--requests", "0"), "--requests must be at least 1"),
        ((), "--scale is for --live"),
    ],
)
def test_what_makes_no_sense_is_refused(mooncake: Mooncake, options: tuple[str, ...], words: str) -> None:
    done = mooncake("bench", "serve", *SMALL, *options)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_server_that_is_not_there(mooncake: Mooncake) -> None:
    done = mooncake("bench", "serve", *SMALL, "--live", f"http://127.0.0.1:{closed_port()}")
    assert done.returncode == 2
    assert "no server answers at" in done.stderr
