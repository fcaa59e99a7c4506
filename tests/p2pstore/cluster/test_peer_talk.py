"""A getter hears news of a peer that changed to lines, speaks to it, and knows how it ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from p2pstore.cluster import peer_talk
from p2pstore.cluster.line_connection import SWITCHING
from p2pstore.cluster.news import Availability
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.errors import PeerStalled, PeerUnreachable, PeerWithdrew, RemoteProtocolError
from p2pstore.objects.bitmap import Bitmap
from tests.p2pstore.cluster.hostile_peer import answer, hostile
from tests.p2pstore.samples import MIB, content, manifest_of

MANIFEST = manifest_of({"": content(3 * MIB)}, MIB)
FIRST = b'{"address":1,"bitmap":"' + Bitmap(3).to_text().encode() + b'","listener":"k","grants":true}\n'
WAIT = 60.0


class Heard:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def hear(self, told: Any, say: peer_talk.Say) -> None:
        self.told.append(told)
        self.say = say


async def converse(reply: bytes, heard: Heard, **options: Any) -> bool:
    client = PeerClient(None)
    try:
        async with hostile(reply, **options) as control:
            return await asyncio.wait_for(client.converse(control, MANIFEST, heard.hear), WAIT)
    finally:
        await client.close()


async def test_news_until_it_withdraws() -> None:
    heard = Heard()
    assert await converse(
        SWITCHING + FIRST + b'{}\n{"have":[[0,2]]}\n{"gone":true}\n{"have":[[2,1]]}\n', heard, stay=True
    )
    first, *rest = heard.told
    assert isinstance(first, Availability)
    assert first.grants
    assert rest == [[0, 1]]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b'{"gone":true,"why":"it was changed"}\n', PeerWithdrew),
        (b'{"have":[[0,9]]}\n', RemoteProtocolError),
        (b"nonsense\n", RemoteProtocolError),
        (b"", PeerUnreachable),
    ],
)
async def test_how_it_ends(said: bytes, fault: type[Exception]) -> None:
    heard = Heard()
    with pytest.raises(fault):
        await converse(SWITCHING + FIRST + said, heard)
    assert len(heard.told) == 1


async def test_of_an_earlier_version_nothing_is_heard() -> None:
    heard = Heard()
    assert not await converse(answer(FIRST), heard)
    assert heard.told == []


async def test_a_peer_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_talk, "SILENCE_SECONDS", 0.2)
    with pytest.raises(PeerStalled):
        await converse(SWITCHING + FIRST, Heard(), stay=True)


async def test_what_a_peer_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's buffers take some, and a peer that takes nothing more is to be begun anew."""
    monkeypatch.setattr(peer_talk, "MAX_UNSAID_BYTES", 1000)
    taken: list[bool] = []

    def hear(_: Any, say: peer_talk.Say) -> None:
        taken.append(say(b"w\n"))
        while say(b"x" * 65536):
            pass

    read = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(SWITCHING + FIRST + b'{"gone":true}\n')
        await read.wait()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    client = PeerClient(None)
    try:
        control = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await asyncio.wait_for(client.converse(control, MANIFEST, hear), WAIT)
        assert taken == [True]
    finally:
        read.set()
        await client.close()
        server.close()


async def test_nothing_is_heard_while_we_are_behind() -> None:
    heard = Heard()
    behind = True
    client = PeerClient(None)
    try:
        async with hostile(SWITCHING + FIRST + b'{"gone":true}\n', stay=True) as control:
            running = asyncio.create_task(client.converse(control, MANIFEST, heard.hear, behind=lambda: behind))
            await asyncio.sleep(0.3)
            assert not running.done()
            assert heard.told == []
            behind = False
            assert await asyncio.wait_for(running, WAIT)
            assert len(heard.told) == 1
    finally:
        await client.close()
