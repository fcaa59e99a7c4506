"""What is no request of the API, or none that is taken: it is answered, and in nobody's way."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from engine.files.open_limit import allow_many_files
from p2pstore.serving.proxy import bodies as module
from tests.p2pstore.serving.proxy.conftest import SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import say_nothing


async def raw(proxy: Running, data: bytes, *, end: bool = False) -> bytes:
    """All that the proxy answers to these bytes, until it closes or has said a whole answer."""
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return head + await asyncio.wait_for(reader.readexactly(length), SECONDS)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


def request(body: bytes, *headers: str, path: str = "/v1/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"n": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b'{"stream": "yes"}', "'stream' must be"),
    ],
    ids=["empty", "half", "binary", "list", "deep", "digits", "stream"],
)
async def test_broken_bodies(engines: Any, proxies: Start, body: bytes, message: str) -> None:
    prefill = await engines()
    proxy = await proxies([prefill], [await engines()])
    for path in ("/v1/completions", "/v1/chat/completions"):
        async with proxy.session.post(
            proxy.url + path, data=body, headers={"Content-Type": "application/json; charset=utf-8"}
        ) as answer:
            assert answer.status == 400
            error = (await answer.json())["error"]
            assert error["type"] == "invalid_request_error"
            assert message in error["message"]
    assert prefill.seen == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_other_content_types(engines: Any, proxies: Start, kind: str) -> None:
    proxy = await proxies([await engines()], [await engines()])
    async with proxy.session.post(proxy.url + "/v1/completions", data=b"{}", headers={"Content-Type": kind}) as answer:
        assert answer.status == 415
        assert (await answer.json())["error"]["code"] == "unsupported_media_type"


async def test_a_compressed_body_is_no_bomb(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines()], [await engines()])
    bomb = gzip.compress(b" " * (256 << 20))
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with proxy.session.post(proxy.url + "/v1/completions", data=bomb, headers=headers) as answer:
        assert answer.status == 415


async def test_large_bodies(engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 1000)
    proxy = await proxies([await engines()], [await engines()])
    assert (await proxy.post(prompt="x" * 900))[0] == 200
    status, said, _ = await proxy.post(prompt="x" * 1000)
    assert (status, said["error"]["code"]) == (413, "body_too_large")
    # It only says that it is large; and it is, and does not say so.
    assert b" 413 " in await raw(proxy, request(b"{}", JSON, "Content-Length: 99999999999"))
    chunk = b"%x\r\n" % 2000 + b" " * 2000 + b"\r\n"
    assert b" 413 " in await raw(proxy, request(chunk, JSON, "Transfer-Encoding: chunked"))


async def test_bodies_that_are_too_much_together(engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come count as well as those that are there."""
    monkeypatch.setattr(module, "MAX_BODIES_BYTES", 1000)
    slow = await engines(behaviour=say_nothing)
    proxy: Running = await proxies([slow], [await engines()])
    first = asyncio.create_task(proxy.post(prompt="x" * 800))
    await happens(lambda: slow.busy == 1)
    status, said, headers = await proxy.post(prompt="x" * 800)
    assert (status, said["error"]["code"]) == (429, "busy")
    assert int(headers["Retry-After"]) >= 1
    chunk = b"%x\r\n" % 500 + b" " * 500 + b"\r\n"
    assert b" 429 " in await raw(proxy, request(chunk, JSON, "Transfer-Encoding: chunked"))
    first.cancel()
    await happens(lambda: proxy.server.bodies.held == 0)
    slow.behaviour = None
    assert (await proxy.post(prompt="x" * 800))[0] == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(b"{}", JSON, "Content-Length: -1"), b" 400 "),
        (request(b"{}", JSON, "Content-Length: 2", "Content-Length: 3"), b" 400 "),
        (request(b"{}", JSON, "Content-Length: 2", "Transfer-Encoding: chunked"), b" 400 "),
        (request(b"zz\r\n{}", JSON, "Transfer-Encoding: chunked"), b" 400 "),
        (b"hello\r\n\r\n", b" 400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b" 400 "),
        (request(b"", JSON, "X: " + "x" * 9000), b" 400 "),
        (request(b"", path="/v1/embeddings"), b" 404 "),
        (b"GET /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", b" 405 "),
    ],
)
async def test_headers_that_lie(engines: Any, proxies: Start, data: bytes, status: bytes) -> None:
    proxy = await proxies([await engines()], [await engines()])
    answer = await raw(proxy, data)
    assert status in answer.splitlines()[0]
    assert b"Server" not in answer
    assert (await proxy.post())[0] == 200


async def test_a_body_that_does_not_come(engines: Any, proxies: Start) -> None:
    """Slowly, or never: the client is told, and its place is free."""
    proxy = await proxies([await engines()], [await engines()], body_seconds=0.2)
    answer = await raw(proxy, request(b'{"prompt"', JSON, "Content-Length: 1000"))
    assert b" 408 " in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"
    await raw(proxy, request(b'{"prompt"', JSON, "Content-Length: 1000"), end=True)
    proxy.server.bodies._seconds = SECONDS
    assert (await proxy.post())[0] == 200


async def test_idle_connections_are_in_nobodys_way(engines: Any, proxies: Start) -> None:
    allow_many_files()
    proxy = await proxies([await engines()], [await engines()])
    host, port = proxy.url.removeprefix("http://").split(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(2000)]
    try:
        assert (await proxy.post())[0] == 200
        assert (await proxy.stream())[1]
    finally:
        for _, writer in idle:
            writer.close()
