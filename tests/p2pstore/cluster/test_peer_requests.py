"""Requests are bounded, end in errors of the tree, and are signed so that the peer takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from p2pstore.cluster import peer_requests
from p2pstore.cluster.auth import CLOCK, HEADER, REALM_HEADER, REFUSAL_HEADER
from p2pstore.cluster.peer_requests import MAX_REALMS, PeerRequests
from p2pstore.errors import ClocksDiffer, PeerHasNot, PeerNameUnknown, PeerStalled, RemoteProtocolError, SecretRefused
from tests.p2pstore.cluster.hostile_peer import answer, hostile

WAIT = 60.0
SECRET = b"s" * 32
Handler = Callable[[web.Request], web.Response]


@asynccontextmanager
async def peer(handler: Handler) -> AsyncIterator[str]:
    """The control address of a server that answers as ``handler`` says."""

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        return handler(request)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(secret: bytes | None) -> AsyncIterator[PeerRequests]:
    made = PeerRequests(secret)
    try:
        yield made
    finally:
        await made.close()


async def test_without_a_secret_nothing_is_signed() -> None:
    seen: list[web.Request] = []

    def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(body=b"hello")

    async with peer(handler) as control, asking(None) as requests:
        assert await requests.whole(control, "/v1/x", 5) == b"hello"
    assert [(each.path, HEADER in each.headers) for each in seen] == [("/v1/x", False)]


async def test_a_realm_is_asked_for_once_and_again_when_the_peer_was_started_again() -> None:
    realm = ["a" * 32]
    asked: list[str] = []

    def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        told = {REALM_HEADER: realm[0]}
        if request.path == "/v1/health":
            return web.Response(headers=told)
        return web.Response(status=200 if realm[0] == good[0] else 403, headers=told)

    good = realm[:]
    async with peer(handler) as control, asking(SECRET) as requests:
        await requests.whole(control, "/v1/x", 5)
        await requests.whole(control, "/v1/x", 5)
        assert asked == ["/v1/health", "/v1/x", "/v1/x"]
        realm[0] = "b" * 32  # refused once, with the new realm, and then refused for good
        with pytest.raises(SecretRefused):
            await requests.whole(control, "/v1/x", 5)
        assert asked[3:] == ["/v1/x", "/v1/x"]
        assert requests._realms[control] == realm[0]


async def test_a_clock_that_is_wrong_is_told_apart() -> None:
    def handler(request: web.Request) -> web.Response:
        status = 200 if request.path == "/v1/health" else 403
        return web.Response(status=status, headers={REALM_HEADER: "a" * 32, REFUSAL_HEADER: CLOCK})

    async with peer(handler) as control, asking(SECRET) as requests:
        with pytest.raises(ClocksDiffer):
            await requests.whole(control, "/v1/x", 5)


async def test_a_realm_that_is_none_and_too_many_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REALMS > 1
    monkeypatch.setattr(peer_requests, "MAX_REALMS", 1)

    def handler(_: web.Request) -> web.Response:
        return web.Response(headers={REALM_HEADER: "../" * 100})

    async with peer(handler) as one, peer(handler) as other, asking(SECRET) as requests:
        await requests.whole(one, "/v1/x", 5)
        await requests.whole(other, "/v1/x", 5)
        assert requests._realms == {other: ""}


async def test_what_is_said_is_said_again_with_the_next_secret() -> None:
    said: list[bytes] = []

    async def words() -> AsyncIterator[bytes]:
        yield b"one\n"
        yield b"two\n"

    async def handle(request: web.Request) -> web.StreamResponse:
        said.append(await request.read())
        return web.Response(status=200 if len(said) > 1 else 403, headers={REALM_HEADER: f"{len(said)}"})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        control = f"127.0.0.1:{runner.addresses[0][1]}"
        async with (
            asking(SECRET) as requests,
            requests.stream(control, "/v1/words", what="it", method="POST", body=words) as taken,
        ):
            assert taken.status == 200
    finally:
        await runner.cleanup()
    assert said[-1] == b"one\ntwo\n"


async def test_an_answer_is_cut_off_at_its_limit() -> None:
    async with hostile(answer(b"123456")) as control, asking(None) as requests:
        assert await requests.whole(control, "/v1/x", 6) == b"123456"
        with pytest.raises(RemoteProtocolError, match="an answer longer than 5 bytes"):
            await requests.whole(control, "/v1/x", 5)


async def test_what_a_peer_has_not_is_called_by_its_name() -> None:
    async with hostile(answer(b"", "404 Not Found")) as control, asking(None) as requests:
        with pytest.raises(PeerHasNot) as caught:
            await requests.whole(control, "/v1/x", 5, what="the thing")
        assert caught.value.fields["what"] == "the thing"


async def test_silence_and_names_of_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_requests, "ANSWER_SECONDS", 0.2)
    async with hostile(b"", stay=True) as control, asking(None) as requests:
        with pytest.raises(PeerStalled):
            await asyncio.wait_for(requests.whole(control, "/v1/x", 5), WAIT)
        with pytest.raises(PeerNameUnknown):
            await asyncio.wait_for(requests.whole("é..é:1", "/v1/x", 5), WAIT)
