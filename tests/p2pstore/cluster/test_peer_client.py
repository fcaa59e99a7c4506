"""Whatever a peer answers, the client returns what is right or raises the peer's fault: nothing else, and in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from p2pstore.cluster import peer_client as module
from p2pstore.cluster import peer_requests
from p2pstore.cluster.news import Availability, Shared
from p2pstore.cluster.news_lines import MAX_LINE_BYTES
from p2pstore.cluster.peer_client import PeerClient, Told
from p2pstore.errors import (
    BadManifest,
    PeerBusy,
    PeerHasNot,
    PeerStalled,
    PeerUnreachable,
    RemoteError,
    RemoteProtocolError,
    SecretRefused,
)
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.gateway import Claim, Rank
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.pace import MAX_LEAD
from tests.p2pstore.cluster.hostile_peer import answer, hostile, lines
from tests.p2pstore.samples import MIB, content, manifest_of

MANIFEST = manifest_of({"": content(9 * MIB)}, MIB)
FULL = json.dumps({"address": 4096, "bitmap": Bitmap(9, full=True).to_text()}).encode()
WAIT = 30.0


@pytest.fixture
async def client() -> AsyncIterator[PeerClient]:
    made = PeerClient(None)
    yield made
    await made.close()


async def ask_all(client: PeerClient, control: str) -> list[BaseException]:
    """What each kind of question ends in."""
    asked = await asyncio.gather(
        client.node(control),
        client.name(control, "n"),
        client.manifest(control, MANIFEST.digest),
        client.count(control, MANIFEST.digest),
        all_news(client, control),
        return_exceptions=True,
    )
    assert all(isinstance(end, BaseException) for end in asked), asked
    return [end for end in asked if isinstance(end, BaseException)]


async def all_news(client: PeerClient, control: str) -> list[Availability | Shared | list[int]]:
    return [item async for item in client.availability(control, MANIFEST)]


NO_ANSWERS = [
    b"",
    b"\0" * 1000,
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000,
    b"HTTP/9.9 999 What\r\n\r\n",
    answer(b"not json"),
    answer(b"[]"),
    answer(b"null"),
    answer(b"{}"),
    answer(b"\xff\xfe"),
    answer(b"[" * 10_000),
    answer(b'{"chunks":-1}'),
    answer(b'{"chunks":1e999}'),
    answer(b'{"chunks":"7"}'),
    answer(b'{"chunks":true}'),
    answer(b'{"chunks":1' + b"0" * 5000 + b"}"),
    answer(b"", "500 Internal Server Error"),
    answer(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"),
    answer(b"", "204 No Content"),
    answer(b"x" * 100, "200 OK", "Content-Encoding: gzip\r\n"),
]


@pytest.mark.parametrize("reply", NO_ANSWERS, ids=range(len(NO_ANSWERS)))
async def test_what_is_no_answer_is_the_peers_fault(client: PeerClient, reply: bytes) -> None:
    async with hostile(reply) as control:
        for end in await asyncio.wait_for(ask_all(client, control), WAIT):
            assert isinstance(end, RemoteError)
            assert end.fields["peer"] == control


async def test_a_peer_that_has_not(client: PeerClient) -> None:
    async with hostile(answer(b"", "404 Not Found")) as control:
        assert {type(end) for end in await ask_all(client, control)} == {PeerHasNot}


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_peer_that_refuses_our_secret(client: PeerClient, status: str) -> None:
    async with hostile(answer(b"", status)) as control:
        assert {type(end) for end in await ask_all(client, control)} == {SecretRefused}


async def test_nobody_there(client: PeerClient) -> None:
    async with hostile(b"") as control:
        pass
    assert {type(end) for end in await ask_all(client, control)} == {PeerUnreachable}


@pytest.mark.parametrize(
    "control", ["", ":", "a:b", "127.0.0.1:99999", "[::1", "a b:1", "127.0.0.1:-1", "é..é:1", "/:1"]
)
async def test_what_is_no_address(client: PeerClient, control: str) -> None:
    for end in await asyncio.wait_for(ask_all(client, control), WAIT):
        assert isinstance(end, RemoteError)


async def begun(client: PeerClient, control: str) -> AsyncIterator[Told]:
    """News of which the first was heard; on a slow day it may be late, which is silence, too."""
    while True:
        news = client.availability(control, MANIFEST)
        try:
            first = await news.__anext__()
        except PeerStalled:
            continue
        assert isinstance(first, Availability)
        return news


async def test_a_peer_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_requests, "SILENCE_SECONDS", 0.2)
    client = PeerClient(None)
    try:
        async with hostile(b"", stay=True) as control:
            assert {type(end) for end in await asyncio.wait_for(ask_all(client, control), WAIT)} == {PeerStalled}
        async with hostile(lines(FULL, b"{}"), stay=True) as control:
            news = await asyncio.wait_for(begun(client, control), WAIT)
            with pytest.raises(PeerStalled):
                await asyncio.wait_for(news.__anext__(), WAIT)
    finally:
        await client.close()


async def test_an_answer_that_drips_for_ever(client: PeerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_requests, "ANSWER_SECONDS", 0.3)
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    async with hostile(head, then=b" ", pause=0.01) as control:
        with pytest.raises(PeerStalled):
            await asyncio.wait_for(client.node(control), WAIT)


async def test_an_endless_answer_is_cut_off(client: PeerClient) -> None:
    async with hostile(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", then=b"x" * 65536) as control:
        with pytest.raises(RemoteProtocolError, match="longer than"):
            await asyncio.wait_for(client.node(control), WAIT)
        with pytest.raises(RemoteProtocolError, match="longer than"):
            await asyncio.wait_for(client.name(control, "n"), WAIT)


async def test_an_endless_manifest_is_cut_off(client: PeerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", 1 << 20)
    async with hostile(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", then=b"x" * 65536) as control:
        with pytest.raises(RemoteProtocolError, match="longer than 1048576 bytes"):
            await asyncio.wait_for(client.manifest(control, MANIFEST.digest), WAIT)


async def test_an_endless_line_is_cut_off(client: PeerClient) -> None:
    async with hostile(lines(FULL), then=b" " * 65536) as control:
        with pytest.raises(RemoteProtocolError, match=f"longer than {MAX_LINE_BYTES} bytes"):
            await asyncio.wait_for(all_news(client, control), WAIT)


async def test_a_manifest_of_another_digest(client: PeerClient) -> None:
    other = manifest_of({"": b"x"}, MIB)
    async with hostile(answer(other.to_bytes())) as control:
        with pytest.raises(BadManifest) as caught:
            await client.manifest(control, MANIFEST.digest)
        assert caught.value.fields["peer"] == control
        assert await client.manifest(control, other.digest) == other


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a\0b", "x" * 256])
async def test_a_manifest_with_its_own_digest_and_unsafe_paths(client: PeerClient, path: str) -> None:
    unsafe = manifest_of({path: b"x"}, MIB)
    async with hostile(answer(unsafe.to_bytes())) as control:
        with pytest.raises(BadManifest):
            await client.manifest(control, unsafe.digest)


async def test_news(client: PeerClient) -> None:
    said = lines(
        FULL,
        b"{}",
        b'{"have":[[0,2],[8,1]]}',
        b'{"have":[]}',
        b'{"shared":true}',
        b'{"gateway":[2,3,1,77],"own":true}',
        b'{"grant":7,"window":3,"lead":0.1}',
        b'{"grant":8,"window":5,"lead":7,"run":[[2,3]]}',
        b'{"grant":9,"window":3,"lead":1' + b"0" * 400 + b"}",
        b'{"since version 2":1}',
        b'{"gone":true}',
        b"garbage",
    )
    async with hostile(said) as control:
        first, *rest = await all_news(client, control)
        assert isinstance(first, Availability)
        assert (first.address, first.have.full) == (4096, True)
        grants = [Grant("", 7, None, 3, 0.1), Grant("", 8, range(2, 5), 5, MAX_LEAD), Grant("", 9, None, 3, MAX_LEAD)]
        assert rest == [[0, 1, 8], [], Shared(shared=True), Claim(2, 3, Rank.ACTING, 77, own=True), *grants]


async def test_a_line_that_is_no_news_ends_the_stream_as_the_peers_fault(client: PeerClient) -> None:
    for said in (lines(b"{}"), lines(FULL, b'{"have":[[9,1]]}')):
        async with hostile(said) as control:
            with pytest.raises(RemoteProtocolError):
                await all_news(client, control)


async def test_many_streams_keep_no_question_waiting(client: PeerClient) -> None:
    """Several gets of many sources each have some hundred of them, and each stays open."""
    async with (
        hostile(lines(FULL), then=b"{}\n", pause=1.0) as streaming,
        hostile(answer(b'{"chunks":7}')) as control,
        contextlib.AsyncExitStack() as streams,
    ):
        for _ in range(120):
            news = client.availability(streaming, MANIFEST)
            await streams.enter_async_context(contextlib.aclosing(news))  # type: ignore[type-var]
            assert isinstance(await asyncio.wait_for(news.__anext__(), WAIT), Availability)
        assert await client.count(control, MANIFEST.digest) == 7


async def test_a_crowded_peer(client: PeerClient) -> None:
    async with hostile(answer(b"", "503 Service Unavailable")) as control:
        with pytest.raises(PeerBusy):
            await all_news(client, control)


async def test_a_stream_that_just_ends(client: PeerClient) -> None:
    async with hostile(lines(FULL) + b'{"have":[[0,') as control:
        news = client.availability(control, MANIFEST)
        assert isinstance(await news.__anext__(), Availability)
        with pytest.raises(PeerUnreachable):
            await news.__anext__()


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n", answer(b"12345")[:-1]]
)
async def test_a_peer_that_is_killed_in_the_middle_of_its_answer(client: PeerClient, reply: bytes) -> None:
    """Users read that in a get's error: it is told in words, and not in those of the library."""
    async with hostile(reply) as control:
        with pytest.raises(PeerUnreachable) as caught:
            await all_news(client, control)
    assert caught.value.fields["detail"] == "it closed the connection"
