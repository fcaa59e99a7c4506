"""What becomes of a request: each fault of the demo proxies (seed: vllm#32920, vllm-ascend#13140 and others), ours right."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from engine.net.backoff import Backoff
from p2pstore.serving import ejection
from p2pstore.serving.admission import Admission, Objectives
from p2pstore.serving.ejection import EJECT_FAILURES
from p2pstore.serving.events import Kind
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.proxy import health
from tests.p2pstore.serving.proxy.conftest import SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import MODEL, ROLE, Engine, cut_off, say_nothing
from tests.ports import reserved_port

PATHS = ["/v1/completions", "/v1/chat/completions"]


def answering(status: int, body: Any, **headers: str) -> Any:
    async def answer(engine: Engine, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return answer


REFUSAL = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}


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


# Death in the middle


async def dying(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Two tokens, half of a third, and the end of the connection."""
    if not body.get("stream"):
        return await cut_off(engine, request, body)
    response = await engine.begin(request)
    await response.write(ROLE)
    await response.write(engine.event(request, "one "))
    await response.write(engine.event(request, "two "))
    await response.write(engine.event(request, "three")[:20])
    await asyncio.sleep(0.05)
    return await cut_off(engine, request, body)


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_breaks_off_says_so(engines: Any, proxies: Start, path: str) -> None:
    decode = await engines(behaviour=dying)
    proxy = await proxies([await engines()], [decode])
    events, done = await proxy.stream(path)
    assert not done
    assert len(events) == 4
    assert events[-1]["error"]["type"] == "server_error"
    assert "decode" in events[-1]["error"]["message"]


async def test_a_stream_of_other_line_ends_is_not_begun_twice(engines: Any, proxies: Start) -> None:
    """Events may end with CRLF: they are tokens all the same, after which nothing begins anew."""

    async def dying_with_crlf(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return await engine.answer(request, body)
        response = await engine.begin(request)
        await response.write(engine.event(request, "one ").replace(b"\n", b"\r\n"))
        await asyncio.sleep(0.05)
        return await cut_off(engine, request, body)

    decodes = [await engines(behaviour=dying_with_crlf) for _ in range(2)]
    proxy = await proxies([await engines()], decodes)
    async with proxy.session.post(proxy.url + PATHS[0], json={"prompt": "x", "stream": True}) as answer:
        text = await answer.text()
    assert text.count("one ") == 1
    assert "instance_failed" in text
    assert sum(len(engine.seen) for engine in decodes) == 1


async def test_an_instance_that_dies_before_a_token_is_replaced_unseen(engines: Any, proxies: Start) -> None:
    """All its requests go elsewhere, and it gets no more of them."""
    dead, alive = await engines(behaviour=say_nothing), await engines()
    proxy: Running = await proxies([await engines()], [dead, alive])
    streams = [asyncio.create_task(proxy.stream(max_tokens=2)) for _ in range(6)]
    await happens(lambda: dead.busy == 3)
    await dead.die()
    for stream in streams:
        events, done = await asyncio.wait_for(stream, SECONDS)
        assert done
        assert len(events) == 2
    assert (await proxy.get("/status"))[1]["decode_nodes"] == [alive.address]
    assert (await proxy.stream())[1]


@pytest.mark.parametrize("kind", [Kind.PREFILL, Kind.DECODE])
async def test_who_finds_that_an_instance_is_dead_blames_no_other(
    engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Its death moves all requests that were there, and so the one that found it: which is at work, and waits for none."""
    monkeypatch.setattr(health, "PROBE_SECONDS", 3600.0)
    dead, alive, other = await engines(), await engines(), await engines()
    sides = ([dead, alive], [other]) if kind is Kind.PREFILL else ([other], [dead, alive])
    proxy: Running = await proxies(*sides)
    await dead.die()
    for stream in (False, True) * 2:
        if stream:
            assert (await proxy.stream())[1]
        else:
            assert (await proxy.post())[0] == 200
    assert {member.place.port: member.failed for member in proxy.server.fleet} == {
        dead.port: 1,
        alive.port: 0,
        other.port: 0,
    }
    assert proxy.server.stats.retries[kind.value] == 1


@pytest.mark.parametrize("failing", ["prefill", "decode"])
async def test_an_instance_that_hangs_is_given_up(engines: Any, proxies: Start, failing: str) -> None:
    hanging, good, other = await engines(behaviour=say_nothing), await engines(), await engines()
    sides = ([hanging, good], [other]) if failing == "prefill" else ([other], [hanging, good])
    proxy = await proxies(*sides, idle_seconds=0.2)
    for _ in range(2):
        assert (await proxy.stream())[1]
    await happens(lambda: hanging.left >= 1 and not hanging.busy)


async def test_a_stream_in_which_nothing_comes_is_ended(engines: Any, proxies: Start) -> None:
    async def stuck(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = await engine.begin(request)
        await response.write(engine.event(request, "one "))
        return await say_nothing(engine, request, body)

    decode = await engines(behaviour=stuck)
    proxy = await proxies([await engines()], [decode], idle_seconds=0.2)
    events, done = await proxy.stream()
    assert not done
    assert len(events) == 2
    assert "nothing came for 0.2 s" in events[-1]["error"]["message"]
    await happens(lambda: decode.left == 1)


async def test_events_reach_the_client_whole_however_they_come(engines: Any, proxies: Start) -> None:
    async def crumbs(engine: Engine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return await engine.answer(request, body)
        response = await engine.begin(request)
        for byte in engine.event(request, "one ") + engine.event(request, "two") + b"data: [DONE]\n\n":
            await response.write(bytes([byte]))
        return response

    proxy = await proxies([await engines()], [await engines(behaviour=crumbs)])
    events, done = await proxy.stream()
    assert done
    assert [event["choices"][0]["text"] for event in events] == ["one ", "two"]


async def test_who_is_well_by_its_own_word_and_fails_all_is_passed_over(engines: Any, proxies: Start) -> None:
    """Its ``/health`` is fine: without this each second request would meet it first, for ever."""
    bad, good = await engines(behaviour=answering(500, REFUSAL)), await engines()
    proxy: Running = await proxies([await engines()], [bad, good])

    async def state() -> str:
        instances = (await proxy.get("/status"))[1]["instances"]
        (said,) = (one for one in instances if one["instance"] == bad.address)
        return said["state"] if not said["why"] else f"{said['state']}: {said['why']}"

    while (said := await state()) == "up":
        assert (await proxy.post())[0] == 200
    assert said == "ejected: it failed several requests in a row: it answers with status 500"
    asked = len(bad.seen)
    assert asked == EJECT_FAILURES
    for _ in range(10):
        assert (await proxy.post())[0] == 200
        assert (await proxy.stream())[1]
    assert len(bad.seen) == asked
    assert proxy.server.stats.retries["decode"] == EJECT_FAILURES
    async with proxy.session.get(proxy.url + "/metrics") as answer:
        ejections = f'mooncake_proxy_instance_ejections_total{{instance="{bad.address}",type="decode"}} 1.0'
        assert ejections in await answer.text()


async def test_who_is_passed_over_is_asked_again_after_a_while(
    engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ejection, "EJECTIONS", Backoff(0.2, 0.4))
    bad, good = await engines(behaviour=answering(503, b"no")), await engines()
    proxy: Running = await proxies([bad, good], [await engines()])
    while not proxy.server.parts.dispatcher.ejected(f"prefill/{bad.address}"):
        assert (await proxy.post())[0] == 200
    bad.behaviour = None
    before = len(bad.seen)
    await happens(lambda: not proxy.server.parts.dispatcher.ejected(f"prefill/{bad.address}"))
    for _ in range(6):
        assert (await proxy.post())[0] == 200
    assert len(bad.seen) == before + 3


async def test_an_instance_with_too_much_to_do_is_not_passed_over(engines: Any, proxies: Start) -> None:
    busy, other = await engines(behaviour=answering(429, REFUSAL)), await engines()
    proxy: Running = await proxies([await engines()], [busy, other])
    for _ in range(4 * EJECT_FAILURES):
        assert (await proxy.post())[0] == 200
    assert len(busy.seen) > EJECT_FAILURES
    assert not proxy.server.parts.dispatcher.ejected(f"decode/{busy.address}")


async def test_tokens_that_come_slowly_are_known_to_the_policy(engines: Any, proxies: Start) -> None:
    """Its guess is 15 ms a token. Once it has seen that these engines take 40, it refuses what promises less."""
    policy = PolicySettings(Placement.LEAST_LOAD, Admission.EARLY, Objectives(tbt=0.03))
    decode = await engines(tokens=40, pause=0.04)
    proxy: Running = await proxies([await engines()], [decode], policy=policy)
    assert (await proxy.stream())[1]
    status, text = 200, ""
    while status == 200:
        async with proxy.session.post(proxy.url + PATHS[0], json={"prompt": "x", "stream": True}) as answer:
            status, text = answer.status, await answer.text()
    assert (status, json.loads(text)["error"]["code"]) == (429, "tbt")
    step = (await proxy.get("/status"))[1]["expected"]["decode_step_seconds"]
    assert step["fixed"] > 0.025


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


# All at once


BEHAVIOURS = [
    None,
    cut_off,
    dying,
    answering(500, REFUSAL),
    answering(429, b"busy"),
    answering(200, b"garbage"),
    answering(200, b'data: {"id": "x", "cho', **{"Content-Type": "text/event-stream"}),
]


@pytest.mark.parametrize("placement", list(Placement))
@pytest.mark.parametrize("p2p", [False, True])
async def test_a_storm(
    engines: Any, proxies: Start, placement: Placement, p2p: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances die, return and misbehave under load: each request ends whole or with an error, and nothing is left."""
    monkeypatch.setattr(health, "RETURNS", health.Backoff(0.02, 0.1))
    monkeypatch.setattr(health, "DOUBT_SECONDS", 0.02)
    chance = random.Random(f"{placement}{p2p}")
    fleet = [await engines(tokens=5, pause=0.002, port=reserved_port()) for _ in range(6)]
    policy = PolicySettings(placement, block_tokens=8)
    proxy: Running = await proxies(fleet[:3], fleet[3:], p2p=p2p, policy=policy, running=20, idle_seconds=2.0)
    whole, failed, left = 0, 0, 0

    async def ask(number: int) -> None:
        nonlocal whole, failed, left
        asked = {
            "prompt": "x" * chance.randrange(2000),
            "stream": number % 3 != 0,
            "max_tokens": 5,
            "user": str(number % 4),
        }
        async with proxy.session.post(proxy.url + PATHS[number % 2], json={"model": MODEL, **asked}) as answer:
            if number % 7 == 0:
                left += 1
                return  # without reading it to its end
            text = (await answer.read()).decode()
            if answer.status != 200:
                assert json.loads(text)["error"], text
                failed += 1
            elif not asked["stream"]:
                assert len(json.loads(text)["choices"][0]["text"].split()) == 5
                whole += 1
            else:
                events = [line.removeprefix("data: ") for line in text.split("\n\n")[:-1]]
                assert text.endswith("\n\n")
                if events[-1] == "[DONE]":
                    assert len(events) == 6, events
                    whole += 1
                else:
                    assert json.loads(events[-1])["error"], events
                    failed += 1

    async def trouble() -> None:
        while True:
            engine = chance.choice(fleet)
            engine.behaviour = chance.choice(BEHAVIOURS)
            await asyncio.sleep(0.02)
            if chance.random() < 0.3:
                await engine.die()
                await asyncio.sleep(0.05)
                await engine.start()
            engine.behaviour = None

    task = asyncio.create_task(trouble())
    try:
        for group in range(6):
            await asyncio.gather(*(ask(group * 30 + number) for number in range(30)))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert whole + failed + left == 180
    assert whole > failed
    for engine in fleet:
        engine.behaviour = None
    await happens(lambda: proxy.server.fleet.ready)
    assert (await proxy.stream())[1]
    await happens(lambda: not any(engine.busy for engine in fleet))
    await happens(lambda: proxy.server.turns.running == 0)


# From node to node


async def test_p2p_says_who_fetches_from_whom(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode], p2p=True)
    assert (await proxy.stream())[1]
    computed, decoded = (engine.seen[0].body["kv_transfer_params"] for engine in (prefill, decode))
    transfer = computed["transfer_id"]
    assert computed == {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
        "transfer_id": transfer,
    }
    assert decoded == {
        "do_remote_decode": False,
        "do_remote_prefill": True,
        "transfer_id": transfer,
        "remote_bootstrap_addr": f"http://{prefill.address}",
        "remote_engine_id": f"engine-{prefill.port}",
    }
    await proxy.stream()
    assert prefill.seen[1].body["kv_transfer_params"]["transfer_id"] != transfer


async def test_p2p_takes_what_the_prefill_answers(engines: Any, proxies: Start) -> None:
    """NIXL's connectors say there which blocks to fetch."""
    prefill = await engines(extra={"kv_transfer_params": {"remote_block_ids": [1, 2], "remote_host": "h"}})
    decode = await engines()
    proxy = await proxies([prefill], [decode], p2p=True)
    assert (await proxy.stream())[1]
    assert decode.seen[0].body["kv_transfer_params"]["remote_block_ids"] == [1, 2]


async def test_p2p_begins_anew_with_the_prefill_where_the_decode_fails(engines: Any, proxies: Start) -> None:
    prefill, bad, good = await engines(), await engines(behaviour=cut_off), await engines()
    proxy = await proxies([prefill], [bad, good], p2p=True)
    assert (await proxy.stream())[1]
    assert (await proxy.stream())[1]
    transfers = [one.body["kv_transfer_params"]["transfer_id"] for one in prefill.seen]
    assert len(set(transfers)) == len(transfers) >= 3


async def test_p2p_begins_anew_where_the_prefill_instance_dies_before_its_cache_was_fetched(
    engines: Any, proxies: Start
) -> None:
    """Its decode instance would wait for it for minutes."""
    first, second, decode = await engines(), await engines(), await engines(behaviour=say_nothing)
    proxy: Running = await proxies([first], [decode], p2p=True)
    stream = asyncio.create_task(proxy.stream())
    await happens(lambda: decode.busy == 1)
    assert [member.running for member in proxy.server.fleet] == [1, 1]
    added = {"type": "prefill", "instance": second.address, "bootstrap": second.port}
    assert (await proxy.admin("/instances/add", **added))[0] == 200
    decode.behaviour = None
    await first.die()
    assert (await proxy.post())[0] == 200  # it may be this that finds that the first is gone
    assert (await asyncio.wait_for(stream, SECONDS))[1]
    assert decode.left == 1
    (source,) = {one.body["kv_transfer_params"]["remote_engine_id"] for one in decode.seen[1:]}
    assert source == f"engine-{second.port}"


async def test_p2p_keeps_a_prefill_instance_until_its_cache_was_fetched(engines: Any, proxies: Start) -> None:
    first, second, decode = await engines(), await engines(), await engines(tokens=20, pause=0.05)
    proxy: Running = await proxies([first, second], [decode], p2p=True)
    decode.behaviour = say_nothing
    stream = asyncio.create_task(proxy.stream())
    await happens(lambda: decode.busy == 1)
    place = next(member.place for member in proxy.server.fleet if member.kind is Kind.PREFILL and member.running)
    (member,) = proxy.server.parts.keeper.find(Kind.PREFILL, place)
    proxy.server.parts.keeper.remove(member)
    await asyncio.sleep(0.3)
    assert not member.removed
    stream.cancel()
    await happens(lambda: member.removed)


async def test_clients_cannot_say_where_kv_cache_comes_from(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines()], [await engines()])
    status, said, _ = await proxy.post(kv_transfer_params={"do_remote_prefill": True, "remote_host": "10.0.0.1"})
    assert status == 400
    assert said["error"]["param"] == "kv_transfer_params"
