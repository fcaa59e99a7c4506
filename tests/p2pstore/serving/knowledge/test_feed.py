"""A real publisher over ZeroMQ, with messages that are lost, kept, forgotten, or no messages at all."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from p2pstore.errors import PackageMissing, UsageError
from p2pstore.serving.knowledge import feed as feeds
from p2pstore.serving.knowledge.feed import Feed
from p2pstore.serving.knowledge.vllm_events import BlocksRemoved, Cleared, EngineEvent
from tests.p2pstore.serving.knowledge.messages import Publisher, removed

FOREVER = 60
LAST = 1000
"""The last block of which is said until a feed is connected."""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.close()


def said(*numbers: int) -> list[EngineEvent]:
    return [BlocksRemoved([number]) for number in numbers]


class Heard:
    def __init__(self) -> None:
        self.events: list[EngineEvent] = []
        self._more = asyncio.Event()

    def __call__(self, events: list[EngineEvent]) -> None:
        self.events += events
        self._more.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(FOREVER) if sys.version_info >= (3, 11) else contextlib.nullcontext():
            while not condition():
                self._more.clear()
                await self._more.wait()


@contextlib.asynccontextmanager
async def reading(publisher: Publisher, *, replay: bool = True) -> AsyncIterator[tuple[Feed, Heard]]:
    """A feed that is connected: what is said until then is not counted."""
    heard = Heard()
    feed = Feed(publisher.endpoint, heard, replay=publisher.replay if replay else None)
    task = asyncio.create_task(feed.run())
    while not heard.events:
        publisher.say(removed([0]))
        await asyncio.sleep(0.05)
    publisher.say(removed([LAST]))
    await heard.until(lambda: heard.events[-1] == BlocksRemoved([LAST]))
    heard.events.clear()
    try:
        yield feed, heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_an_engine_said_before_is_replayed(publisher: Publisher) -> None:
    for number in range(1, 4):
        publisher.say(removed([number]), lost=True)
    heard = Heard()
    task = asyncio.create_task(Feed(publisher.endpoint, heard, replay=publisher.replay).run())
    while not heard.events:
        publisher.say(removed([4]))
        await asyncio.sleep(0.05)
    await heard.until(lambda: len(heard.events) >= 4)
    assert heard.events[:4] == said(1, 2, 3, 4)
    task.cancel()


async def test_a_gap_is_filled_in_order(publisher: Publisher) -> None:
    async with reading(publisher) as (feed, heard):
        publisher.say(removed([1]), lost=True)
        publisher.say(removed([2]), lost=True)
        publisher.say(removed([3]))
        await heard.until(lambda: len(heard.events) >= 3)
        assert heard.events == said(1, 2, 3)
        assert feed.missed == 0


async def test_without_a_replay_a_gap_clears_what_is_known(publisher: Publisher) -> None:
    async with reading(publisher, replay=False) as (feed, heard):
        publisher.say(removed([1]), lost=True)
        publisher.say(removed([2]))
        await heard.until(lambda: len(heard.events) >= 2)
        assert heard.events == [Cleared(), *said(2)]
        assert feed.missed == 1


async def test_what_the_engine_has_forgotten_is_missed(publisher: Publisher) -> None:
    async with reading(publisher) as (feed, heard):
        publisher.say(removed([1]), lost=True)
        publisher.sent = []
        publisher.say(removed([2]))
        await heard.until(lambda: len(heard.events) >= 2)
        assert heard.events == [Cleared(), *said(2)]
        assert feed.missed == 1


async def test_an_engine_that_begins_anew_has_nothing(publisher: Publisher) -> None:
    async with reading(publisher) as (_, heard):
        publisher.number, publisher.sent = 0, []
        publisher.say(removed([1]), lost=True)
        publisher.say(removed([2]))
        await heard.until(lambda: len(heard.events) >= 3)
        assert heard.events == [Cleared(), *said(1, 2)]


async def test_a_message_that_is_none_is_counted_and_nothing_is_believed(publisher: Publisher) -> None:
    async with reading(publisher) as (feed, heard):
        publisher.say(payload=b"\xc1")
        publisher.say(removed([2]))
        await heard.until(lambda: len(heard.events) >= 2)
        assert heard.events == [Cleared(), *said(2)]
        assert feed.bad == 1


async def test_a_replay_that_does_not_come_is_not_waited_for(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(publisher) as (feed, heard):
        monkeypatch.setattr(feeds, "REPLAY_SECONDS", 0.2)
        feed._replay = "tcp://127.0.0.1:1"
        publisher.say(removed([1]), lost=True)
        publisher.say(removed([2]))
        await heard.until(lambda: len(heard.events) >= 2)
        assert heard.events == [Cleared(), *said(2)]


async def test_an_endpoint_that_is_none() -> None:
    with pytest.raises(UsageError, match="no endpoint of ZeroMQ's"):
        await Feed("nonsense", lambda _: None).run()


def test_without_its_packages_it_says_which_extra_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(PackageMissing, match="pyzmq") as caught:
        Feed("tcp://127.0.0.1:1", lambda _: None)
    assert "mooncake-cli[events]" in caught.value.hint
