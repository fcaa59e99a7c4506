"""Bytes that never pause for long, as far as there are any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from p2pstore.hub import dripping as module
from p2pstore.hub.dripping import DROP_BYTES, DROPS, dripping
from tests.p2pstore.samples import MIB, content

WAIT = 60.0
DATA = content(MIB)


async def test_all_bytes_come_in_order_and_only_the_end_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DROP_SECONDS", 0.01)
    more = asyncio.Event()

    async def pieces() -> AsyncGenerator[memoryview, None]:
        yield memoryview(DATA)[:10]
        yield memoryview(DATA)[10 : MIB // 2]
        await more.wait()
        yield memoryview(DATA)[MIB // 2 :]

    got = bytearray()
    sizes = []
    async for piece in dripping(pieces()):
        got += piece
        sizes.append(len(piece))
        if sizes[-3:] == [DROP_BYTES] * 3:
            more.set()
    assert got == DATA
    assert MIB // 2 - 10 - DROP_BYTES * DROPS in sizes


async def test_a_fault_is_raised_and_what_was_read_before_is_given_out() -> None:
    closed = asyncio.Event()

    async def pieces() -> AsyncGenerator[memoryview, None]:
        try:
            yield memoryview(DATA)
            raise OSError("no more")
        finally:
            closed.set()

    got = bytearray()

    async def take() -> None:
        async for piece in dripping(pieces()):
            got.extend(piece)

    with pytest.raises(OSError, match="no more"):
        await asyncio.wait_for(take(), WAIT)
    assert len(got) >= MIB - DROP_BYTES * DROPS
    assert closed.is_set()


async def test_whoever_reads_no_more_ends_it() -> None:
    closed = asyncio.Event()

    async def pieces() -> AsyncGenerator[memoryview, None]:
        try:
            yield memoryview(DATA)
            await asyncio.Event().wait()
        finally:
            closed.set()

    reading = dripping(pieces())
    await anext(reading)
    await reading.aclose()
    assert closed.is_set()
