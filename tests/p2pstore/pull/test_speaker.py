"""Words reach the sources that they are for, in their order, and who does not hear is begun anew."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from p2pstore.cluster.words import to_line
from p2pstore.errors import PeerUnreachable
from p2pstore.pull import speaker as module
from p2pstore.pull.speaker import Speaker
from p2pstore.swarm.events import Opened

WAIT = 60.0


class Peers:
    """In place of a client: it notes what is said to each, until it is told to hang up."""

    def __init__(self) -> None:
        self.heard: dict[str, bytes] = {}
        self.hangs_up = False
        self.deaf = False
        self.changed = asyncio.Event()

    async def say(self, control: str, digest: str, listener: str, words: Callable[[], AsyncIterator[bytes]]) -> None:
        assert (digest, listener) == ("d", "key")
        if self.hangs_up:
            raise PeerUnreachable(peer=control, detail="it hung up")
        if self.deaf:
            await asyncio.Event().wait()
        async for data in words():
            self.heard[control] = self.heard.get(control, b"") + data
            self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), WAIT)


class World:
    def __init__(self) -> None:
        self.peers = Peers()
        self.delivered: set[str] = set()
        self.anew: list[str] = []
        self.speaker = Speaker(
            self.peers,  # type: ignore[arg-type]
            "d",
            delivered=self.delivered.__contains__,
            begin_anew=self.begin_anew,
        )

    def begin_anew(self, node: str) -> None:
        self.anew.append(node)
        self.peers.changed.set()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for node in ("a", "b"):
        await made.speaker.end(node)


async def test_each_hears_its_words_in_their_order_from_any_thread(world: World) -> None:
    world.speaker.begin("a", "a:1", "key")
    world.speaker.begin("b", "b:1", "key")

    def speak() -> None:
        for number in range(100):
            world.speaker.say(Opened("a" if number % 2 else "b", number))

    thread = threading.Thread(target=speak)
    thread.start()
    for node, first in (("a:1", 1), ("b:1", 0)):
        name = node[0]
        expected = b"\n" + b"".join(to_line(Opened(name, number)) for number in range(first, 100, 2))
        await world.peers.until(lambda node=node, expected=expected: world.peers.heard.get(node) == expected)  # type: ignore[misc]
    thread.join(WAIT)
    assert world.anew == []


async def test_who_hears_on_the_connection_of_its_news_hears_at_once(world: World) -> None:
    heard: list[bytes] = []

    def say(line: bytes) -> bool:
        heard.append(line)
        return len(heard) < 3

    world.speaker.begin_over("a", say)
    world.speaker.say(Opened("a", 1))
    assert heard == [to_line(Opened("a", 1))]
    await asyncio.to_thread(world.speaker.say, Opened("a", 2))
    world.speaker.say(Opened("a", 3))
    assert heard == [to_line(Opened("a", number)) for number in (1, 2, 3)]
    assert world.anew == ["a"], "it does not take what it is told"
    await world.speaker.end("a")
    world.speaker.say(Opened("a", 4))
    assert len(heard) == 3


async def test_what_is_for_nobody_is_let_go(world: World) -> None:
    world.speaker.say(Opened("nobody", 1))
    world.speaker.begin("a", "a:1", "key")
    await world.peers.until(lambda: "a:1" in world.peers.heard)
    await world.speaker.end("a")
    world.speaker.say(Opened("a", 1))
    await asyncio.sleep(0)
    assert world.peers.heard == {"a:1": b"\n"}
    assert world.anew == []


async def test_who_hangs_up_is_begun_anew_and_spoken_to_no_more_if_it_never_sent_anything(world: World) -> None:
    world.peers.hangs_up = True
    world.delivered.add("b")
    for node in "ab":
        world.speaker.begin(node, f"{node}:1", "key")
    await world.peers.until(lambda: sorted(world.anew) == ["a", "b"])
    assert (world.speaker.hears("a"), world.speaker.hears("b")) == (False, True)


async def test_what_is_to_be_said_does_not_pile_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNSAID", 2)
    world.peers.deaf = True
    world.speaker.begin("a", "a:1", "key")
    for number in range(3):
        world.speaker.say(Opened("a", number))
    await world.peers.until(lambda: world.anew == ["a"])


async def test_ending_twice_or_what_never_began_is_harmless(world: World) -> None:
    await world.speaker.end("a")
    world.speaker.begin("a", "a:1", "key")
    await world.speaker.end("a")
    await world.speaker.end("a")
