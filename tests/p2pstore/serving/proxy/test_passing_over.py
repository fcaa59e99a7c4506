"""What a proxy learns of its instances from how they serve: who is passed over, and how long a step takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.net.backoff import Backoff
from p2pstore.serving import ejection
from p2pstore.serving.admission import Admission, Objectives
from p2pstore.serving.ejection import EJECT_FAILURES
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from tests.p2pstore.serving.proxy.conftest import Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import (
    PATHS,
    REFUSAL,
    answering,
)


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


async def test_what_a_prefill_instance_does_alone_is_no_merit_of_a_decode_instance(
    engines: Any, proxies: Start
) -> None:
    """Else one that fails all that it is asked would never have failed several in a row."""
    prefill, bad, good = await engines(), await engines(behaviour=answering(500, REFUSAL)), await engines()
    proxy: Running = await proxies([prefill], [bad, good])
    for _ in range(4 * EJECT_FAILURES):
        assert (await proxy.post())[0] == 200
        for alone in ({"prompt_logprobs": 1}, {"prompt_logprobs": 1, "stream": True}):
            asked = {"prompt": "x", **alone}
            async with proxy.session.post(proxy.url + PATHS[0], json=asked) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
    assert proxy.server.parts.dispatcher.ejected(f"decode/{bad.address}")
    assert len(bad.seen) == EJECT_FAILURES


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
