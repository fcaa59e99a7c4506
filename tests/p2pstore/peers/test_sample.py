"""A sample is served to who asks for it, from one buffer, and no longer than somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from engine.errors import RangeRefused
from engine.serving.segment_server import SegmentServer
from p2pstore.peers import sample as module
from p2pstore.peers.sample import SAMPLE_BYTES, Sample

WAIT = 60.0


@pytest.fixture
def engine() -> Iterator[SegmentServer]:
    with SegmentServer() as made:
        yield made


async def read(engine: SegmentServer, address: int) -> bytes:
    room = bytearray(SAMPLE_BYTES)
    await asyncio.to_thread(engine.read, engine.address_of_self(), address, memoryview(room))
    return bytes(room)


async def test_all_who_ask_are_given_one(engine: SegmentServer) -> None:
    sample = Sample(engine)
    addresses = await asyncio.gather(*(sample.address() for _ in range(10)))
    assert len(set(addresses)) == 1
    assert await read(engine, addresses[0]) == bytes(SAMPLE_BYTES)
    sample.close()


async def test_it_is_given_up_when_nobody_asks(engine: SegmentServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERVED_SECONDS", 0.01)
    sample = Sample(engine)
    address = await sample.address()

    async def refused() -> None:
        while True:
            try:
                await read(engine, address)
            except RangeRefused:
                return

    await asyncio.wait_for(refused(), WAIT)
    monkeypatch.setattr(module, "SERVED_SECONDS", WAIT)
    assert await read(engine, await sample.address()) == bytes(SAMPLE_BYTES)
    sample.close()


async def test_a_node_that_ends_leaves_nothing_running(engine: SegmentServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERVED_SECONDS", 0.0)
    sample = Sample(engine)
    await sample.address()
    sample.close()
    sample.close()
