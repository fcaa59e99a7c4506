"""What becomes of a request: each fault of the demo proxies (seed: vllm#32920, vllm-ascend#13140 and others), ours right."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.p2pstore.serving.proxy.conftest import Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import (
    MODEL,
    PATHS,
    REFUSAL,
    ROLE,
    Engine,
    answering,
    cut_off,
    say_nothing,
)

# The copy for the prefill instance


async def test_the_prefill_copy_ends_after_one_token(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    asked = {"stream_options": {"include_usage": True}, "max_completion_tokens": 3, "max_tokens": 3, "min_tokens": 2}
    events, done = await proxy.stream(PATHS[1], n=2, **asked)
    assert done
    assert events[-1]["usage"] == {"completion_tokens": 3}
    copy, whole = prefill.seen[0].body, decode.seen[0].body
    assert (copy["max_tokens"], copy["max_completion_tokens"], copy["n"], copy["stream"]) == (1, 1, 1, False)
    assert "stream_options" not in copy
    assert "min_tokens" not in copy
    assert {key: whole[key] for key in asked} == asked
    assert whole["stream"] is True


async def test_authorization_and_request_id_are_passed_on(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    headers = {"Authorization": "Bearer of-the-client", "X-Request-Id": "mine", "traceparent": "00-1"}
    async with proxy.session.post(proxy.url + PATHS[0], json={"prompt": "x"}, headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["X-Request-Id"] == "mine"
    for engine in (prefill, decode):
        assert {key: engine.seen[0].headers[key] for key in headers} == headers
    await proxy.post()
    assert "Authorization" not in prefill.seen[1].headers
    assert "Authorization" not in decode.seen[1].headers


@pytest.mark.parametrize(
    ("said", "counted"),
    [("3", 3), ("-1", 1), ("1" + 400 * "0", 458), ('"many"', 1), ("null", 1), ("1e400", 1), ("[1]", 1)],
    ids=range(7),
)
async def test_a_count_of_tokens_that_cannot_be_is_not_believed(
    engines: Any, proxies: Start, said: str, counted: int
) -> None:
    body = f'{{"choices":[{{"text":"x"}}],"usage":{{"completion_tokens":{said}}}}}'.encode()
    proxy: Running = await proxies([await engines()], [await engines(behaviour=answering(200, body))])
    assert (await proxy.post())[0] == 200
    await happens(lambda: proxy.server.parts.stats.tokens == counted)
    assert (await proxy.get("/status"))[0] == 200


async def test_log_probabilities_of_the_prompt_are_the_prefill_instances(engines: Any, proxies: Start) -> None:
    """A decode instance that is asked for them dies (vllm-ascend#13363)."""
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    status, said, _ = await proxy.post(prompt_logprobs=1, max_tokens=2)
    assert status == 200
    assert said["choices"][0]["text"].startswith(f"{prefill.port}-0")
    assert (await proxy.stream(echo=True, logprobs=1))[1]
    assert decode.seen == []


# Errors of instances


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_prefill_is_the_clients_and_nothing_is_decoded(
    engines: Any, proxies: Start, path: str, stream: bool
) -> None:
    prefill, decode = await engines(behaviour=answering(400, REFUSAL)), await engines()
    proxy = await proxies([prefill], [decode])
    status, said, headers = await proxy.post(path, stream=stream)
    assert (status, said) == (400, REFUSAL)
    assert headers["Content-Type"].startswith("application/json")
    assert decode.seen == []
    assert len(prefill.seen) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_decode_is_the_clients(engines: Any, proxies: Start, stream: bool) -> None:
    decode = await engines(behaviour=answering(404, REFUSAL, **{"x-why": "no"}))
    proxy = await proxies([await engines()], [decode])
    status, said, headers = await proxy.post(stream=stream)
    assert (status, said, headers["x-why"]) == (404, REFUSAL, "no")


async def test_a_refusal_that_is_no_json_gets_openais_form(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines(behaviour=answering(413, b"<html>too large"))], [await engines()])
    status, said, _ = await proxy.post()
    assert status == 413
    assert said["error"]["message"] == "<html>too large"


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("failing", ["prefill", "decode"])
async def test_an_instance_that_fails_is_not_the_last_word(
    engines: Any, proxies: Start, status: int, failing: str
) -> None:
    bad, good, other = await engines(behaviour=answering(status, REFUSAL)), await engines(), await engines()
    sides = ([bad, good], [other]) if failing == "prefill" else ([other], [bad, good])
    proxy = await proxies(*sides)
    for _ in range(4):
        assert (await proxy.post())[0] == 200
        assert (await proxy.stream())[1]
    assert bad.seen != []
    # It is well otherwise: it is not excluded for what some requests met.
    assert (await proxy.get("/status"))[1][f"{failing}_node_count"] == 2


async def test_where_all_fail_the_last_error_is_kept(engines: Any, proxies: Start) -> None:
    said = {"error": {"message": "engine dead", "type": "InternalServerError", "param": None, "code": 500}}
    decode = await engines(behaviour=answering(500, said, **{"Retry-After": "7"}))
    proxy = await proxies([await engines()], [decode])
    status, body, headers = await proxy.post(stream=True)
    assert (status, body, headers["Retry-After"]) == (500, said, "7")
    assert len(decode.seen) == 3


@pytest.mark.parametrize(
    "behaviour",
    [
        answering(200, b"garbage"),
        answering(200, b""),
        answering(302, b"", Location="http://127.0.0.1:1/"),
        cut_off,
        answering(200, b"data: garbage\n\n", **{"Content-Type": "text/event-stream"}),
        answering(200, b"<html>hello</html>\n\n", **{"Content-Type": "text/event-stream"}),
        answering(200, b'data: {"id": "x", "cho', **{"Content-Type": "text/event-stream"}),
        answering(200, b"", **{"Content-Type": "text/event-stream"}),
        answering(200, ROLE, **{"Content-Type": "text/event-stream"}),
    ],
    ids=["garbage", "nothing", "elsewhere", "cut", "no-json", "no-events", "half", "empty", "role-only"],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failing", ["prefill", "decode"])
async def test_an_instance_that_answers_nonsense(
    engines: Any, proxies: Start, behaviour: Any, stream: bool, failing: str
) -> None:
    """Alone it is an error that says so; beside a good one the client does not notice."""
    bad, good, other = await engines(behaviour=behaviour), await engines(), await engines()
    sides = ([bad], [other]) if failing == "prefill" else ([other], [bad])
    proxy = await proxies(*sides)
    status, said, _ = await proxy.post(stream=stream)
    assert status == 502
    assert said["error"]["code"] == "instance_failed"
    assert failing in said["error"]["message"]
    assert str(bad.port) not in said["error"]["message"]
    sides = ([bad, good], [other]) if failing == "prefill" else ([other], [bad, good])
    proxy = await proxies(*sides)
    for _ in range(2):
        if stream:
            assert (await proxy.stream())[1]
        else:
            assert (await proxy.post())[0] == 200


async def test_a_stream_that_begins_with_an_error_is_an_error(engines: Any, proxies: Start) -> None:
    body = b"data: " + json.dumps(REFUSAL).encode() + b"\n\ndata: [DONE]\n\n"
    decode = await engines(behaviour=answering(200, body, **{"Content-Type": "text/event-stream"}))
    proxy = await proxies([await engines()], [decode])
    assert (await proxy.post(stream=True))[:2] == (400, REFUSAL)
    assert len(decode.seen) == 1


# Clients


@pytest.mark.parametrize("failing", ["prefill", "decode"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_instance(
    engines: Any, proxies: Start, failing: str, stream: bool
) -> None:
    slow, other = await engines(tokens=1000, pause=0.05), await engines()
    if failing == "prefill" or not stream:
        slow.behaviour = say_nothing
    sides = ([slow], [other]) if failing == "prefill" else ([other], [slow])
    proxy: Running = await proxies(*sides)
    answer = asyncio.create_task(
        proxy.session.post(proxy.url + PATHS[0], json={"model": MODEL, "prompt": "x", "stream": stream})
    )
    await happens(lambda: slow.busy == 1)
    if stream and failing == "decode":
        (await answer).close()
    else:
        answer.cancel()
    await happens(lambda: slow.left == 1 and slow.busy == 0)
    await happens(lambda: proxy.server.turns.running == 0)
    assert proxy.server.stats.left == 1


async def test_a_client_that_does_not_read_is_cut_off(engines: Any, proxies: Start) -> None:
    """Else it would keep its place in the engine for as long as it likes."""

    async def flood(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return await engine.answer(request, body)
        response = await engine.begin(request)
        event = engine.event(request, "x" * 65536)
        while True:
            await response.write(event)

    decode = await engines(behaviour=flood)
    proxy: Running = await proxies([await engines()], [decode], client_seconds=0.3)
    async with proxy.session.post(proxy.url + PATHS[0], json={"prompt": "x", "stream": True}) as answer:
        assert answer.status == 200
        await happens(lambda: decode.left == 1)
        await happens(lambda: proxy.server.turns.running == 0)
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_clients_cannot_say_where_kv_cache_comes_from(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines()], [await engines()])
    status, said, _ = await proxy.post(kv_transfer_params={"do_remote_prefill": True, "remote_host": "10.0.0.1"})
    assert status == 400
    assert said["error"]["param"] == "kv_transfer_params"
