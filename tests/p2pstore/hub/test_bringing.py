"""Repositories that are brought as a whole, by one node or several together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pstore.errors import OriginDiffers, OriginRefused, OriginUnavailable
from p2pstore.hub import fetch as fetching
from p2pstore.hub.bringing import bring
from p2pstore.hub.hub import Hub
from p2pstore.hub.origin import parse_origin
from p2pstore.node import Node
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from tests.p2pstore.hub.stand_in import StandIn
from tests.p2pstore.nodes import Start, start
from tests.p2pstore.samples import MIB, content

__all__ = ["start"]

NAME = "org/n"
BIG = "m.safetensors"
FILES = {"config.json": b"{}", BIG: content(3 * MIB + 3), "sub/b.txt": b"b", "same": b"{}", "empty": b""}
WAIT = 60.0
Make = Callable[[Node], Hub]


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    made = StandIn()
    made.repos[NAME] = dict(FILES)
    yield made
    made.close()


@pytest.fixture
async def make(stand_in: StandIn) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def maker(node: Node) -> Hub:
            made = Hub(node.parts, node.supervisor, upstream=stand_in.url)
            stack.push_async_callback(made.close)
            return made

        yield maker


def brought(hub: Hub, text: str = f"hf://{NAME}", selection: Selection | None = None) -> Awaitable[tuple[Path, str]]:
    work = bring(hub, parse_origin(text), NAME, selection or Selection(), Steps())
    return asyncio.wait_for(work, WAIT)


def files_in(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def once(stand_in: StandIn) -> bool:
    """Whether each content was read once; two files have the same."""
    sent = dict(stand_in.sent)
    return sent.pop("config.json", 0) + sent.pop("same", 0) == 2 and sent == {BIG: len(FILES[BIG]), "sub/b.txt": 1}


async def test_all_of_it(start: Start, make: Make, stand_in: StandIn) -> None:
    hub = make(await start("one"))
    place, commit = await brought(hub)
    assert commit == stand_in.commit(NAME)
    assert files_in(place) == FILES
    again, _ = await brought(hub, f"hf://{NAME}@{commit}")
    assert again != place
    assert files_in(again) == FILES
    assert once(stand_in)


async def test_some_of_it(start: Start, make: Make, stand_in: StandIn) -> None:
    hub = make(await start("one"))
    place, _ = await brought(hub, selection=Selection(include=("*.json",)))
    assert files_in(place) == {"config.json": b"{}"}
    with pytest.raises(OriginRefused, match="none of its files"):
        await brought(hub, selection=Selection(include=("*.gguf",)))


async def test_nodes_that_bring_it_together_read_it_once(start: Start, make: Make, stand_in: StandIn) -> None:
    hubs = [make(await start(f"node{number}")) for number in range(3)]
    found = await asyncio.gather(*map(brought, hubs))
    assert [files_in(place) for place, _ in found] == [FILES] * 3
    assert once(stand_in)


async def test_what_the_hub_refuses(start: Start, make: Make) -> None:
    hub = make(await start("one"))
    for text in ("hf://org/none", f"hf://{NAME}@v9"):
        with pytest.raises(OriginRefused):
            await brought(hub, text)


async def test_what_is_gated(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.token = "secret"
    with pytest.raises(OriginRefused, match="it is gated") as refused:
        await brought(make(await start("one")))
    assert type(refused.value) is OriginRefused


async def test_wrong_bytes(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.wrong.add(BIG)
    with pytest.raises(OriginDiffers):
        await brought(make(await start("one")))


async def test_a_path_that_leads_elsewhere_is_not_written(start: Start, make: Make, stand_in: StandIn) -> None:
    stand_in.repos[NAME]["../../x"] = b"x"
    with pytest.raises(OriginUnavailable, match="cannot be"):
        await brought(make(await start("one")))


async def test_the_next_attempt_goes_on(
    start: Start, make: Make, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PATIENCE_SECONDS", 0.01)
    stand_in.break_after[BIG] = [MIB]
    hub = make(await start("one"))
    with pytest.raises(OriginUnavailable):
        await brought(hub)
    stand_in.sent.clear()
    place, _ = await brought(hub)
    assert files_in(place) == FILES
    assert stand_in.sent[BIG] == len(FILES[BIG])


async def test_a_cancel_before_anything_came_leaves_nothing_claimed(
    start: Start, make: Make, stand_in: StandIn
) -> None:
    """A task that is cancelled before its first step runs nothing of itself."""
    one, other = make(await start("one")), make(await start("other"))
    for rounds in range(2, 40):
        bringing = asyncio.ensure_future(brought(one))
        for _ in range(rounds):
            await asyncio.sleep(0)
        bringing.cancel()
        await asyncio.gather(bringing, return_exceptions=True)
    place, _ = await brought(other)
    assert files_in(place) == FILES
    place, _ = await brought(one)
    assert files_in(place) == FILES


async def test_one_of_two_that_is_cancelled_does_not_end_the_other(start: Start, make: Make, stand_in: StandIn) -> None:
    hub = make(await start("one"))
    stand_in.hold.clear()
    both = [asyncio.ensure_future(brought(hub)) for _ in range(2)]

    async def both_wait() -> None:
        while not any(fetch.file.path == BIG and fetch._readers == 2 for fetch in hub.mirror._fetching.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await asyncio.wait_for(both_wait(), WAIT)
    both[0].cancel()
    await asyncio.gather(both[0], return_exceptions=True)
    stand_in.hold.set()
    place, _ = await both[1]
    assert files_in(place) == FILES
    assert stand_in.sent[BIG] == len(FILES[BIG])


async def test_a_cancel_ends_the_reading(start: Start, make: Make, stand_in: StandIn) -> None:
    hub = make(await start("one"))
    stand_in.hold.clear()
    bringing = asyncio.ensure_future(brought(hub))

    async def begun() -> None:
        while not stand_in.sent[BIG]:  # noqa: ASYNC110 - in another thread
            await asyncio.sleep(0.01)

    await asyncio.wait_for(begun(), WAIT)
    bringing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bringing

    async def over() -> None:
        while hub.mirror._fetching:  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0.01)

    await asyncio.wait_for(over(), WAIT)
    stand_in.hold.set()
    place, _ = await brought(hub)
    assert files_in(place) == FILES
