"""What answers and failures of instances mean."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest
import trustme
from aiohttp import web

from p2pstore.serving.events import Kind
from p2pstore.serving.proxy.fleet import Member, Place, parse_instance
from p2pstore.serving.proxy.health import Health
from p2pstore.serving.proxy.options import Options
from p2pstore.serving.proxy.upstream import InstanceFailed, Problem, Upstream, models, ranks, token_ids
from tests.p2pstore.serving.proxy.conftest import Start
from tests.p2pstore.serving.proxy.fake_engine import MODEL, Engine


def member(address: str, bootstrap: int | None = None) -> Member:
    place = parse_instance(address)
    return Member(Place(place.host, place.port, place.scheme, bootstrap), Kind.PREFILL, Health(0.0))


async def problem_of(whose: Member, *, thorough: bool = True, **options: Any) -> Problem | None:
    upstream = Upstream(Options(MODEL, **options))
    try:
        await upstream.check(whose, thorough=thorough)
    except Problem as problem:
        return problem
    finally:
        await upstream.close()
    return None


async def test_who_is_well(engines: Any) -> None:
    engine = await engines()
    assert await problem_of(member(engine.address)) is None
    assert await problem_of(member((await engines(model="other/tiny")).address)) is None
    assert await problem_of(member((await engines(healthy=404)).address)) is None
    asked = member(engine.address, bootstrap=engine.port)
    assert await problem_of(asked) is None
    assert asked.ranks == (("0", f"engine-{engine.port}"),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"healthy": 503}, "/health answers with status 503"),
        ({"model": "other"}, "it serves other, not models/tiny"),
        ({"model": "other", "healthy": 404}, "it serves other, not models/tiny"),
        ({"key": "k"}, "set OPENAI_API_KEY"),
    ],
)
async def test_who_is_not(engines: Any, options: dict[str, Any], said: str) -> None:
    problem = await problem_of(member((await engines(**options)).address))
    assert problem is not None
    assert said in str(problem)
    assert not problem.refused


async def test_our_key_opens_theirs(engines: Any) -> None:
    engine = await engines(key="k")
    assert await problem_of(member(engine.address), engine_key="k") is None
    assert await problem_of(member(engine.address), thorough=False) is None


async def test_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        for host in ("127.0.0.1", "localhost"):
            problem = await problem_of(member(f"{host}:{taken.getsockname()[1]}"))
            assert problem is not None
            assert problem.refused
            assert "refused" in str(problem).lower() or "connect" in str(problem).lower()


async def test_a_connection_that_does_not_come_about() -> None:
    """The kernel drops what no longer fits into a listener's queue: so a host that is off, or behind a firewall, looks."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        upstream = Upstream(Options(MODEL, connect_seconds=0.3))
        try:
            with pytest.raises(InstanceFailed, match="no answer in time") as caught:
                await upstream.post(member(f"127.0.0.1:{listener.getsockname()[1]}"), "/x", b"", {})
        finally:
            await upstream.close()
        assert not caught.value.refused


async def test_a_name_that_is_none() -> None:
    problem = await problem_of(member("no-such-host.invalid:80"))
    assert problem is not None
    assert not problem.refused


async def test_a_certificate_that_nobody_vouches_for() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    try:
        problem = await problem_of(member(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    finally:
        server.close()
        await server.wait_closed()
    assert problem is not None
    assert "certificate" in str(problem)
    assert not problem.refused


async def test_a_bootstrap_server_that_is_none(engines: Any) -> None:
    engine = await engines()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        problem = await problem_of(member(engine.address, bootstrap=taken.getsockname()[1]))
    assert problem is not None
    assert "bootstrap" in str(problem)
    assert not problem.refused  # the instance itself is there


async def test_a_kept_connection_that_was_closed_is_no_failure() -> None:
    """Engines close idle connections at a time of their own."""
    answered = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n")
        answered += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        await reader.read(1)  # the next request comes, and is not answered
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = Upstream(Options(MODEL))
    whose = member(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        for _ in range(3):
            answer = await upstream.post(whose, "/x", b"", {})
            assert await answer.read() == b"{}"
    finally:
        await upstream.close()
        server.close()
        await server.wait_closed()
    assert answered == 3


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"hello\r\n\r\n", "no HTTP"),
        (b"\x00" * 100 + b"\r\n\r\n", "no HTTP"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "no HTTP"),
    ],
)
async def test_what_is_no_answer(said: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = Upstream(Options(MODEL))
    try:
        with pytest.raises(InstanceFailed, match=reason):
            await upstream.post(member(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), "/x", b"", {})
    finally:
        await upstream.close()
        server.close()
        await server.wait_closed()


async def test_connections_are_used_again(engines: Any, proxies: Start) -> None:
    """A demo makes a session, and so a connection, for each request."""
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    for _ in range(10):
        assert (await proxy.post())[0] == 200
        assert (await proxy.stream())[1]
    for engine in (prefill, decode):
        assert len(engine.seen) == 20
        assert len({one.client for one in engine.seen}) <= 10  # a slow day closes some meanwhile


async def test_redirects_are_not_followed(engines: Any) -> None:
    async def away(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"http://{engine.address}/v1/models"})

    engine = await engines(behaviour=away)
    upstream = Upstream(Options(MODEL))
    try:
        answer = await upstream.post(
            member(engine.address), "/v1/completions", b"{}", {"Content-Type": "application/json"}
        )
        assert answer.status == 307
        answer.close()
    finally:
        await upstream.close()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data": 7}', b'{"data": [7]}', b"[" * 100_000])
def test_answers_that_name_no_model_and_no_rank(body: bytes) -> None:
    assert models(body) == []
    assert ranks(body) == ()


def test_token_ids() -> None:
    assert token_ids(b'{"tokens": [1, 2]}') == [1, 2]
    for body in (b"", b"[]", b'{"tokens": 7}', b'{"tokens": ["a"]}', b'{"tokens": [-1]}', b'{"tokens": [true]}'):
        assert token_ids(body) is None


def test_ranks() -> None:
    assert ranks(b'{"0": {"engine_id": "a"}, "1": {"engine_id": "b"}}') == (("0", "a"), ("1", "b"))
    assert ranks(b'{"x": {"engine_id": "a"}}') == ()
    assert ranks(b'{"0": {"engine_id": 7}}') == ()
