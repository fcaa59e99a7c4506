"""Instances go out when they die, and come back when they are well."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from p2pstore.serving.events import Kind
from p2pstore.serving.proxy import health, upstream
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.fleet import parse_instance
from p2pstore.serving.proxy.upstream import InstanceFailed
from tests.p2pstore.serving.proxy.conftest import Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import REFUSAL, Engine, answering, cut_off, say_nothing
from tests.ports import reserved_port


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(health, "DOUBT_SECONDS", 0.02)
    monkeypatch.setattr(health, "RETURNS", health.Backoff(0.02, 0.1))


@pytest.mark.parametrize("kind", [Kind.PREFILL, Kind.DECODE])
async def test_who_dies_goes_and_who_returns_is_back(engines: Any, proxies: Start, kind: Kind) -> None:
    """And takes none of the other kind along: a demo looks for a dead prefill instance among those for decode."""
    first, second, other = await engines(), await engines(port=reserved_port()), await engines()
    proxy: Running = await proxies(
        *([[first, second], [other]] if kind is Kind.PREFILL else [[other], [first, second]])
    )
    await second.die()
    await happens(lambda: len(proxy.server.fleet.of(kind)) == 1)
    status = (await proxy.get("/status"))[1]
    assert sorted([*status["prefill_nodes"], *status["decode_nodes"]]) == sorted([first.address, other.address])
    instances = status["instances"]
    (down,) = (one for one in instances if one["instance"] == second.address)
    assert down["state"] == "down"
    assert "cannot connect" in down["why"]
    for _ in range(4):
        assert (await proxy.post())[0] == 200
    await second.start()
    await happens(lambda: len(proxy.server.fleet.of(kind)) == 2)
    before = len(second.seen)
    for _ in range(4):
        assert (await proxy.post())[0] == 200
    assert len(second.seen) > before


async def test_who_says_that_it_is_ill_goes_too(engines: Any, proxies: Start) -> None:
    ill = await engines()
    proxy: Running = await proxies([await engines()], [ill, await engines()])
    ill.healthy = 500
    await happens(lambda: len(proxy.server.fleet.of(Kind.DECODE)) == 1)
    ill.healthy = 200
    await happens(lambda: len(proxy.server.fleet.of(Kind.DECODE)) == 2)


async def test_who_hangs_loses_its_requests(engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, an engine still accepts connections: only its silence tells."""
    hanging, good = await engines(behaviour=say_nothing), await engines()
    get = upstream.Upstream._get

    async def soon(self: upstream.Upstream, url: str, headers: Mapping[str, str]) -> Any:
        """The good one has as long as it takes."""
        return await asyncio.wait_for(get(self, url, headers), 0.2 if hanging.hangs and hanging.address in url else 60)

    monkeypatch.setattr(upstream, "PROBE_TIMEOUT_SECONDS", 60.0)
    monkeypatch.setattr(upstream.Upstream, "_get", soon)
    proxy: Running = await proxies([await engines()], [hanging, good])
    streams = [asyncio.create_task(proxy.stream()) for _ in range(4)]
    await happens(lambda: hanging.busy == 2)
    hanging.hangs = True
    for stream in streams:
        assert (await stream)[1]
    assert [one.place.address for one in proxy.server.fleet.of(Kind.DECODE)] == [good.address]


async def test_it_starts_before_its_instances(engines: Any, proxies: Start) -> None:
    late = Engine(port=reserved_port())
    proxy: Running = await proxies([await engines()], [late], wait=False)
    assert (await proxy.post())[0] == 503
    await late.start()
    try:
        await happens(lambda: proxy.server.fleet.ready)
        assert (await proxy.post())[0] == 200
    finally:
        await late.close()


async def test_another_engine_in_its_place_gets_nothing(engines: Any, proxies: Start) -> None:
    first, second = await engines(), await engines(port=reserved_port())
    proxy: Running = await proxies([await engines()], [first, second])
    await second.die()
    await happens(lambda: len(proxy.server.fleet.of(Kind.DECODE)) == 1)
    second.model = "other"
    await second.start()
    place = parse_instance(second.address)
    (member,) = proxy.server.parts.keeper.find(Kind.DECODE, place)
    await happens(lambda: "it serves other" in member.health.why)
    assert not member.up


async def test_a_failure_at_an_instance_that_was_removed_is_not_the_next_ones(engines: Any, proxies: Start) -> None:
    decode = await engines()
    proxy: Running = await proxies([await engines()], [decode])
    keeper = proxy.server.parts.keeper
    (old,) = keeper.fleet.of(Kind.DECODE)
    keeper.remove(old)
    await happens(lambda: old.removed)
    await keeper.add_verified(old.place, old.kind)
    keeper.failed(InstanceFailed(old, "cannot connect: Connection refused", refused=True))
    assert (await proxy.post())[0] == 200


async def test_one_bad_request_excludes_nobody(engines: Any, proxies: Start) -> None:
    """A request that makes each engine fail goes from one to the next, and they stay."""
    decodes = [await engines(behaviour=cut_off) for _ in range(3)]
    proxy: Running = await proxies([await engines()], decodes)
    status, said, _ = await proxy.post()
    assert (status, said["error"]["code"]) == (502, "instance_failed")
    assert all(engine.seen for engine in decodes)
    await asyncio.sleep(0.2)
    assert len(proxy.server.fleet.of(Kind.DECODE)) == 3


async def test_that_it_has_too_much_to_do_is_not_why_an_instance_is_passed_over(engines: Any, proxies: Start) -> None:
    bad, good = await engines(behaviour=answering(500, REFUSAL)), await engines()
    proxy: Running = await proxies([await engines()], [bad, good])
    name = f"decode/{bad.address}"
    while not proxy.server.parts.dispatcher.ejected(name):
        assert (await proxy.post())[0] == 200
    member = proxy.server.fleet.members[name]
    busy = Answer(429, b"", {})
    proxy.server.parts.keeper.failed(InstanceFailed(member, "it answers with status 429", answer=busy))
    (said,) = (one for one in (await proxy.get("/status"))[1]["instances"] if one["instance"] == bad.address)
    assert said["why"] == "it failed several requests in a row: it answers with status 500"
