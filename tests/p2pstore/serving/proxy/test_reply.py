"""What a client gets of a stream's beginning, and under which name."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from tests.p2pstore.serving.proxy.conftest import Running, Start
from tests.p2pstore.serving.proxy.fake_engine import Engine


async def test_the_first_token_comes_with_the_headers(engines: Any, proxies: Start, monkeypatch: Any) -> None:
    """One packet less: and aiohttp still hears that it is to wait with them."""
    written: list[bytes] = []
    real = web.StreamResponse.prepare

    async def prepare(response: web.StreamResponse, request: Any) -> Any:
        found = await real(response, request)
        if request.headers.get("X-Watched"):  # and not the engine's, which is served by aiohttp, too
            transport = request.transport

            class Watched:
                def __getattr__(self, name: str) -> Any:
                    return getattr(transport, name)

                def write(self, data: Any) -> None:
                    written.append(bytes(data))
                    transport.write(data)

                def writelines(self, parts: Any) -> None:
                    parts = list(map(bytes, parts))
                    written.append(b"".join(parts))
                    transport.writelines(parts)

            request.protocol.transport = Watched()
        return found

    proxy: Running = await proxies([await engines()], [await engines(pause=0.1)])
    monkeypatch.setattr(web.StreamResponse, "prepare", prepare)
    headers = {"X-Watched": "yes"}
    async with proxy.session.post(proxy.url + "/v1/completions", json={"stream": True}, headers=headers) as answer:
        assert (await answer.text()).endswith("data: [DONE]\n\n")
    assert written[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"data: " in written[0]


async def test_a_request_has_one_name(engines: Any, proxies: Start) -> None:
    """Engines may answer with the name that they were told, which is another one after a failure."""

    async def named(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return web.json_response({"choices": []}, headers={"x-request-id": "an engine's"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "x-request-id": "an engine's"})
        await response.prepare(request)
        await response.write(engine.event(request, "one ") + b"data: [DONE]\n\n")
        return response

    proxy: Running = await proxies([await engines()], [await engines(behaviour=named)])
    names: list[list[str]] = []
    for stream in (True, False):
        asked = {"prompt": "x", "stream": stream}
        for mine in ({"X-Request-Id": "mine"}, {}, {"X-Request-Id": "x" * 1000}):
            async with proxy.session.post(proxy.url + "/v1/completions", json=asked, headers=mine) as answer:
                await answer.read()
                names.append(answer.headers.getall("X-Request-Id"))
    assert [len(each) for each in names] == [1] * 6
    assert [names[0], names[3]] == [["mine"], ["mine"]]
    made = [each[0] for each in (*names[1:3], *names[4:])]
    assert len(set(made)) == 4
    assert all(len(each) == 32 for each in made)


async def test_nothing_of_aiohttps_is_said_to_instances(engines: Any, proxies: Start) -> None:
    prefill = await engines()
    proxy: Running = await proxies([prefill], [await engines()])
    await proxy.post()
    await asyncio.sleep(0)
    headers = prefill.seen[0].headers
    assert headers["User-Agent"] == "mooncake-proxy"
    assert headers["Accept-Encoding"] == "identity"
