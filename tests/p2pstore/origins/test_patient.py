"""A part of an origin's file that is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from p2pstore.errors import OriginChanged, OriginUnavailable
from p2pstore.origins import patient as module
from p2pstore.origins.patient import PatientReading, Stalled
from p2pstore.origins.quiet import Quiet

Stream = Callable[[int], AsyncGenerator[bytes, None]]
WAIT = 60.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRIES", module.Backoff(0.001, 0.001))
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(module, "SECTION_PATIENCE_SECONDS", 0.2)


async def read(stream: Stream, *, resumes: bool = True, alone: bool = True) -> bytes:
    got = bytearray()

    async def take(block: bytes) -> None:
        got.extend(block)

    reading = PatientReading("x", stream, take, Quiet("x", "", asyncio.get_running_loop().time))
    await asyncio.wait_for(reading.run(10, 20, resumes=resumes, alone=alone), WAIT)
    return bytes(got)


DATA = bytes(range(20))


async def test_it_goes_on_where_it_broke_off() -> None:
    asked = []

    async def stream(begin: int) -> AsyncGenerator[bytes, None]:
        asked.append(begin)
        yield DATA[begin : begin + 4]
        if len(asked) == 1:
            raise OriginUnavailable(origin="x", detail="it broke off")

    assert await read(stream) == DATA[10:]
    assert asked == [10, 14, 18]


async def test_what_cannot_be_resumed_is_not() -> None:
    async def stream(begin: int) -> AsyncGenerator[bytes, None]:
        yield DATA[begin : begin + 4]

    with pytest.raises(OriginUnavailable, match="too early"):
        await read(stream, resumes=False)


async def test_one_that_stays_away_is_given_up_and_a_section_left_to_others() -> None:
    async def stream(begin: int) -> AsyncGenerator[bytes, None]:
        raise OriginUnavailable(origin="x", detail=f"nothing at {begin}")
        yield b""

    with pytest.raises(OriginUnavailable, match="nothing at 10"):
        await read(stream)
    with pytest.raises(Stalled) as stalled:
        await read(stream, alone=False)
    assert stalled.value.fault.fields["detail"] == "nothing at 10"


@pytest.mark.parametrize("alone", [True, False])
async def test_one_that_hangs_and_hears_of_no_timeout(monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    monkeypatch.setattr(module, "BLOCK_SECONDS", 0.05)

    async def stream(begin: int) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(WAIT * 10)
        yield DATA[begin:]

    with pytest.raises(OriginUnavailable if alone else Stalled, match="it sent nothing"):
        await read(stream, alone=alone)


async def test_what_speaks_against_the_file_is_raised_at_once() -> None:
    async def stream(begin: int) -> AsyncGenerator[bytes, None]:
        yield DATA[begin : begin + 1]
        raise OriginChanged(origin="x", detail="another version")

    with pytest.raises(OriginChanged):
        await read(stream)
