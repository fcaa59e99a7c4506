"""The proxy before fake engines, over real sockets: its surface, and each fault of the demo proxies done right."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import sys
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families as read_text

from engine.files.open_limit import allow_many_files
from p2pstore.serving.admission import Admission, Objectives
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.proxy import bodies as module
from tests.p2pstore.serving.proxy.conftest import SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import MODEL, Engine, say_nothing


async def test_a_prompt_is_computed_on_one_and_decoded_on_another(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    status, said, _ = await proxy.post(max_tokens=5)
    assert status == 200
    assert said["choices"][0]["text"].split() == [f"{decode.port}-{number}" for number in range(5)]
    assert [one.body["max_tokens"] for one in prefill.seen] == [1]
    assert [one.body["max_tokens"] for one in decode.seen] == [5]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_stream_is_passed_on(engines: Any, proxies: Start, path: str) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    events, done = await proxy.stream(path, max_tokens=4)
    assert done
    assert len(events) == 4
    assert (prefill.seen[0].path, decode.seen[0].path) == (path, path)
    assert prefill.seen[0].body["stream"] is False


# What is no request


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


# Turns


async def test_more_than_it_serves_wait_and_more_than_wait_are_refused(engines: Any, proxies: Start) -> None:
    slow = await engines(behaviour=say_nothing)
    proxy: Running = await proxies([await engines()], [slow], running=1, waiting=1, wait_seconds=60)
    first = asyncio.create_task(proxy.post())
    await happens(lambda: slow.busy == 1)
    second = asyncio.create_task(proxy.post())
    await happens(lambda: proxy.server.turns.waiting == 1)
    status, said, headers = await proxy.post()
    assert (status, said["error"]["type"], said["error"]["code"]) == (429, "rate_limit_error", "busy")
    assert int(headers["Retry-After"]) >= 1
    slow.behaviour = None
    first.cancel()
    assert (await second)[0] == 200


async def test_who_waits_for_too_long_is_told(engines: Any, proxies: Start) -> None:
    slow = await engines(behaviour=say_nothing)
    proxy = await proxies([await engines()], [slow], running=1, waiting=5, wait_seconds=0.2)
    first = asyncio.create_task(proxy.post())
    await happens(lambda: slow.busy == 1)
    status, said, _ = await proxy.post()
    assert status == 429
    assert "no turn came" in said["error"]["message"]
    first.cancel()


async def test_a_client_that_waits_and_leaves_takes_no_turn(engines: Any, proxies: Start) -> None:
    slow = await engines(behaviour=say_nothing)
    proxy: Running = await proxies([await engines()], [slow], running=1, waiting=5)
    first = asyncio.create_task(proxy.post())
    await happens(lambda: slow.busy == 1)
    second = asyncio.create_task(proxy.post())
    await happens(lambda: proxy.server.turns.waiting == 1)
    second.cancel()
    await happens(lambda: proxy.server.turns.waiting == 0)
    first.cancel()
    await happens(lambda: proxy.server.turns.running == 0)


async def test_a_crowd_that_waits_and_leaves_at_once(engines: Any, proxies: Start) -> None:
    """A turn ends, and those who wait are looked at, before they have heard that their clients left."""
    crowd = 2 * sys.getrecursionlimit()
    proxy: Running = await proxies([await engines()], [await engines()], running=1, waiting=crowd)
    server = proxy.server
    await server._turn()
    for end in (lambda: server._end_waits(math.inf), server._end_turn):
        waits = [asyncio.create_task(server._turn()) for _ in range(crowd)]
        await happens(lambda: server.turns.waiting == crowd)
        for wait in waits:
            wait.cancel()
        end()
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ends)
    assert server.turns.running == server.turns.waiting == 0
    assert (await proxy.post())[0] == 200


async def test_what_would_be_too_late_is_refused(engines: Any, proxies: Start) -> None:
    policy = PolicySettings(Placement.LEAST_LOAD, Admission.EARLY, Objectives(ttft=1e-9))
    proxy: Running = await proxies([await engines()], [await engines()], policy=policy)
    status, said, headers = await proxy.post(stream=True)
    assert (status, said["error"]["code"]) == (429, "ttft")
    assert int(headers["Retry-After"]) >= 1
    assert proxy.server.stats.refused["ttft"] == 1


# Those who look after it


async def test_nobody_is_there(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines()], [])
    assert (await proxy.get("/health"))[0] == 503
    status, said, headers = await proxy.post()
    assert (status, said["error"]["code"]) == (503, "no_instance")
    assert "no decode instance" in said["error"]["message"]
    assert "prefill" not in said["error"]["message"]
    assert int(headers["Retry-After"]) >= 1


async def test_status_and_health(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    status, said = await proxy.get("/status")
    assert status == 200
    assert {key: said[key] for key in list(said)[:4]} == {
        "prefill_node_count": 1,
        "decode_node_count": 1,
        "prefill_nodes": [prefill.address],
        "decode_nodes": [decode.address],
    }
    assert [one["state"] for one in said["instances"]] == ["up", "up"]
    for path in ("/health", "/healthcheck"):
        assert await proxy.get(path) == (200, {"status": "ok", "prefill_instances": 1, "decode_instances": 1})


async def test_models_are_an_instances(engines: Any, proxies: Start) -> None:
    key = "of-the-engines"
    prefill, decode = await engines(key=key), await engines(key=key)
    proxy = await proxies([prefill], [decode], engine_key=key)
    assert (await proxy.get("/v1/models"))[0] == 401  # our key is not for everybody
    headers = {"Authorization": f"Bearer {key}"}
    async with proxy.session.get(proxy.url + "/v1/models", headers=headers) as answer:
        assert (await answer.json())["data"][0]["id"] == MODEL


async def test_metrics(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    await proxy.post()
    await proxy.stream(max_tokens=7)
    await proxy.post(stream="no")
    async with proxy.session.get(proxy.url + "/metrics") as answer:
        text = await answer.text()
    samples = {
        (sample.name, *sample.labels.values()): sample.value for family in read_text(text) for sample in family.samples
    }
    assert samples["mooncake_proxy_requests_total", "/v1/completions", "200"] == 2
    assert samples["mooncake_proxy_requests_total", "/v1/completions", "400"] == 1
    assert samples["mooncake_proxy_instance_up", decode.address, "decode"] == 1
    assert samples["mooncake_proxy_instance_served_total", prefill.address, "prefill"] == 2
    assert samples["mooncake_proxy_time_to_first_token_seconds_count",] == 2
    assert samples["mooncake_proxy_time_to_first_token_seconds_bucket", "+Inf"] == 2
    assert samples["mooncake_proxy_requests_running",] == 0


async def test_without_the_library_for_metrics(engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = await proxies([await engines()], [await engines()])
    monkeypatch.delitem(sys.modules, "p2pstore.serving.proxy.metrics", raising=False)
    monkeypatch.delattr("p2pstore.serving.proxy.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    status, said = await proxy.get("/metrics")
    assert status == 501
    assert "pip install" in said["error"]["message"]


async def test_only_the_key_adds_and_removes(engines: Any, proxies: Start) -> None:
    engine = await engines()
    named = {"type": "decode", "instance": engine.address}
    proxy = await proxies([await engines()], [await engines()])
    for path in ("/instances/add", "/instances/remove"):
        assert (await proxy.admin(path, key=None, **named))[0] == 403
        status, said = await proxy.admin(path, key="wrong-key", **named)
        assert status == 403
        assert "wrong-key" not in json.dumps(said)
    without = await proxies([await engines()], [await engines()], admin_key=None)
    status, said = await without.admin("/instances/add", key="", **named)
    assert status == 500
    assert "ADMIN_API_KEY" in said["error"]["message"]


async def test_an_instance_is_added_and_removed(engines: Any, proxies: Start) -> None:
    first, second = await engines(), await engines(tokens=1000, pause=0.02)
    proxy: Running = await proxies([await engines()], [first])
    named = {"type": "decode", "instance": second.address}
    status, said = await proxy.admin("/instances/add", **named)
    assert (status, said) == (200, {"message": f"Added {second.address} to decode_instances."})
    assert set((await proxy.get("/status"))[1]["decode_nodes"]) == {first.address, second.address}
    status, said = await proxy.admin("/instances/add", **named)
    assert status == 400
    assert "there already" in said["error"]["message"]
    long = [asyncio.create_task(proxy.stream(max_tokens=30)) for _ in range(2)]
    await happens(lambda: second.busy == 1)
    status, said = await proxy.admin("/instances/remove", **named)
    assert (status, said["running"]) == (200, 1)
    for _ in range(4):
        assert (await proxy.post())[1]["choices"][0]["text"].startswith(f"{first.port}-")
    states = {one["instance"]: one["state"] for one in (await proxy.get("/status"))[1]["instances"]}
    assert states[second.address] == "draining"
    for stream in long:  # what it had it ends
        events, done = await stream
        assert (len(events), done) == (30, True)
    await happens(lambda: len(list(proxy.server.fleet)) == 2)
    assert (await proxy.admin("/instances/remove", **named))[0] == 404
    assert (await proxy.admin("/instances/add", **named))[0] == 200


async def test_an_instance_that_does_not_drain_is_cut(engines: Any, proxies: Start) -> None:
    stuck, good = await engines(behaviour=say_nothing), await engines()
    proxy = await proxies([await engines()], [stuck], drain_seconds=0.2)
    waits = asyncio.create_task(proxy.stream())
    await happens(lambda: stuck.busy == 1)
    assert (await proxy.admin("/instances/add", type="decode", instance=good.address))[0] == 200
    assert (await proxy.admin("/instances/remove", type="decode", instance=stuck.address))[0] == 200
    assert (await asyncio.wait_for(waits, SECONDS))[1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"type": "both", "instance": "h:1"}, "'type' is one of"),
        ({"instance": "h:1"}, "'type' is one of"),
        ({"type": "decode"}, "no HOST:PORT"),
        ({"type": "decode", "instance": 7}, "no HOST:PORT"),
        ({"type": "decode", "instance": "localhost"}, "no HOST:PORT"),
        ({"type": "decode", "instance": "h:1/path"}, "no HOST:PORT"),
        ({"type": "decode", "instance": "file://h:1"}, "http"),
        ({"type": "decode", "instance": "h:99999"}, "no HOST:PORT"),
        ({"type": "prefill", "instance": "127.0.0.1:1", "bootstrap": "x"}, "bootstrap"),
        ({"type": "decode", "instance": "127.0.0.1:1"}, "cannot connect"),
    ],
)
async def test_what_cannot_be_added(engines: Any, proxies: Start, body: dict[str, Any], message: str) -> None:
    proxy = await proxies([await engines()], [await engines()])
    status, said = await proxy.admin("/instances/add", **body)
    assert status == 400
    assert message in said["error"]["message"]


async def test_an_instance_of_another_model_is_not_added(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines()], [await engines()])
    other = await engines(model="other")
    status, said = await proxy.admin("/instances/add", type="decode", instance=other.address)
    assert status == 400
    assert "it serves other, not" in said["error"]["message"]


async def test_names_and_ipv6(engines: Any, proxies: Start) -> None:
    six, four = await engines(host="::1"), await engines()
    proxy = await proxies([six], [six])
    assert (await proxy.post())[0] == 200
    added = {"type": "decode", "instance": f"localhost:{four.port}"}
    assert (await proxy.admin("/instances/add", **added))[0] == 200
    for _ in range(2):
        assert (await proxy.stream())[1]
    assert len(four.seen) == 1


# Its end


async def test_it_lets_requests_end(engines: Any, proxies: Start) -> None:
    decode = await engines(tokens=20, pause=0.02)
    proxy: Running = await proxies([await engines()], [decode])
    stream = asyncio.create_task(proxy.stream())
    await happens(lambda: decode.busy == 1)
    end = asyncio.create_task(proxy.server.drain(SECONDS))
    await asyncio.sleep(0)
    status, said, _ = await proxy.post()
    assert (status, said["error"]["code"]) == (503, "ending")
    assert (await proxy.get("/health"))[0] == 503
    assert (await stream)[1]
    await end


async def test_what_does_not_end_is_told(engines: Any, proxies: Start) -> None:
    async def stuck(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = await engine.begin(request)
        await response.write(engine.event(request, "one "))
        return await say_nothing(engine, request, body)

    decode = await engines(behaviour=stuck)
    proxy: Running = await proxies([await engines()], [decode])
    stream = asyncio.create_task(proxy.stream())
    await happens(lambda: decode.busy == 1)
    await proxy.server.drain(0.1)
    events, done = await stream
    assert not done
    assert events[-1]["error"]["code"] == "ending"
