"""Large files of the hub that clients read while they come, through one node or several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import pytest

from p2pstore.endpoint import arriving
from p2pstore.endpoint import server as serving
from p2pstore.hub.listing import blob_name
from p2pstore.hub.origin import parse_origin
from p2pstore.node import Node
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.origins.bringing import bring
from p2pstore.origins.gathering import Gathering
from tests.p2pstore.endpoint.served import Endpoint, endpoint, make
from tests.p2pstore.hub.stand_in import StandIn
from tests.p2pstore.nodes import Start, start
from tests.p2pstore.origins.gatherings import WAIT, short, until
from tests.p2pstore.samples import MIB, large

__all__ = ["endpoint", "make", "short", "start"]

NAME = "org/n"
BIG = "m.safetensors"
DATA_BYTES = 70 * MIB + 5
"""Of five sections."""
Serve = Callable[..., Awaitable[str]]


def data() -> bytes:
    return large(DATA_BYTES)


@pytest.fixture
def hub() -> Iterator[StandIn]:
    made = StandIn()
    made.repos[NAME] = {BIG: data()}
    yield made
    made.close()


@pytest.fixture
def gatherings() -> dict[str, Gathering]:
    """By the URLs of those that are served."""
    return {}


@pytest.fixture
def serve(hub: StandIn, endpoint: Endpoint, gatherings: dict[str, Gathering], monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.setattr(serving, "PATIENCE_SECONDS", WAIT)
    monkeypatch.setattr(arriving, "LOOKS_SECONDS", WAIT)

    async def server(node: Node, *, upstream: bool = True) -> str:
        url, gathering = await endpoint(node, hub.url if upstream else None)
        gatherings[url] = gathering
        return url

    return server


async def read(url: str, wanted: str = "") -> bytes:
    headers = {"Range": f"bytes={wanted}"} if wanted else {}
    timeout = aiohttp.ClientTimeout(total=WAIT)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{url}/{NAME}/resolve/main/{BIG}", headers=headers) as answer,
    ):
        assert answer.status == (206 if wanted else 200), await answer.text()
        return await answer.read()


def sections_of(gathering: Gathering) -> list[str]:
    return [each.name for each in gathering.hub.parts.holdings if each.name.startswith("origins/")]


async def test_clients_of_two_nodes_read_it_together_and_the_hub_is_read_once(
    start: Start, serve: Serve, hub: StandIn
) -> None:
    urls = [await serve(await start(name)) for name in ("one", "other")]
    assert [got == data() for got in await asyncio.gather(*map(read, urls))] == [True, True]
    assert hub.sent[BIG] == DATA_BYTES
    assert await read(urls[0], "100-199") == data()[100:200]


async def test_it_is_read_as_it_comes_from_wherever_one_reads(
    start: Start, serve: Serve, hub: StandIn, gatherings: dict[str, Gathering]
) -> None:
    url = await serve(await start("one"))
    hub.hold.clear()
    hub.held_from = 40 * MIB
    middle = f"{33 * MIB}-{34 * MIB}"
    assert await asyncio.wait_for(read(url, middle), WAIT) == data()[33 * MIB : 34 * MIB + 1]
    assert len(sections_of(gatherings[url])) < 5
    whole = asyncio.create_task(read(url))
    assert await asyncio.wait_for(read(url, "0-999"), WAIT) == data()[:1000]
    assert not whole.done()
    hub.hold.set()
    assert await whole == data()
    assert hub.sent[BIG] == DATA_BYTES


async def test_a_node_without_the_hub_reads_what_another_one_reads(
    start: Start, serve: Serve, hub: StandIn, gatherings: dict[str, Gathering]
) -> None:
    """Before the file is whole."""
    one, other = await serve(await start("one")), await serve(await start("other"), upstream=False)
    hub.hold.clear()
    hub.held_from = 40 * MIB
    reading = asyncio.create_task(read(one))
    await until(lambda: len(sections_of(gatherings[one])) >= 2)
    assert await read(other, f"0-{20 * MIB}") == data()[: 20 * MIB + 1]
    assert not reading.done()
    hub.hold.set()
    assert await reading == data()


async def test_nobody_gets_the_whole_of_a_wrong_file(start: Start, serve: Serve, hub: StandIn) -> None:
    hub.wrong.add(BIG)
    url = await serve(await start("one"))
    got = bytearray()

    async def take() -> None:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/{NAME}/resolve/main/{BIG}") as answer:
            async for piece in answer.content.iter_any():
                got.extend(piece)

    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(take(), WAIT)
    assert len(got) < DATA_BYTES
    hub.wrong.clear()

    async def right() -> bytes:
        while True:
            try:
                return await read(url)
            except AssertionError:  # it is told to come again
                await asyncio.sleep(0.1)

    assert await asyncio.wait_for(right(), WAIT) == data()


async def test_a_client_and_a_register_bring_it_once(
    start: Start, serve: Serve, hub: StandIn, gatherings: dict[str, Gathering]
) -> None:
    """Whichever comes first; and whoever ends the register does not end the client's reading."""
    url = await serve(await start("one"))
    hub.hold.clear()
    hub.held_from = 40 * MIB
    registering = asyncio.create_task(bring(gatherings[url], parse_origin(f"hf://{NAME}"), NAME, Selection(), Steps()))
    await until(lambda: len(sections_of(gatherings[url])) >= 2)
    assert await asyncio.wait_for(read(url, "0-99"), WAIT) == data()[:100]
    reading = asyncio.create_task(read(url))
    await until(lambda: bool(hub.asked))
    registering.cancel()
    await asyncio.gather(registering, return_exceptions=True)
    hub.hold.set()
    assert await asyncio.wait_for(reading, WAIT) == data()
    assert gatherings[url].held(blob_name(hub.files(NAME)[0].oid)) is not None


async def test_a_hub_that_gives_out_no_parts(start: Start, serve: Serve, hub: StandIn) -> None:
    hub.ranges = False
    urls = [await serve(await start(name)) for name in ("one", "other")]
    found = await asyncio.gather(*map(read, urls))
    assert [got == data() for got in found] == [True, True]
