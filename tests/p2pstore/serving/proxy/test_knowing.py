"""What instances and the pool say that they hold, over real sockets, decides where a prompt goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from engine.rpc.messages import Replica, Status
from p2pstore.serving.placement import Placement
from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.proxy.knowing import LOOK_SECONDS
from p2pstore.serving.proxy.prompts import of_tokens
from p2pstore.serving.proxy.upstream import Problem
from tests.p2pstore.kv.master.table import PLACE, Served, Table
from tests.p2pstore.serving.knowledge.messages import CLEARED, Publisher, stored
from tests.p2pstore.serving.proxy.conftest import Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import Engine

TEXT = "abcdefgh" * 4
TOKENS = [ord(each) for each in TEXT]
POLICY = PolicySettings(Placement.PREFIX_LOCAL, block_tokens=8)
HASHES = [bytes([number]) * 32 for number in range(8)]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.close()


def held(proxy: Running) -> int:
    """Blocks of the text that some instance holds now."""
    return proxy.server.parts.dispatcher.policy.prefixes.match(of_tokens(TOKENS, 8, {}).blocks, (1 << 16) - 1).best


async def told(proxy: Running, publisher: Publisher, *events: Any, until: int) -> None:
    """Say it until it was heard: who connects late misses what was said before, unless it is said again."""
    publisher.say(*events)
    for _ in range(600):
        if held(proxy) == until:
            return
        publisher.say()
        await asyncio.sleep(0.05)
    raise AssertionError(held(proxy))


async def with_events(engines: Any, proxies: Start, publisher: Publisher) -> tuple[Running, Engine, Engine]:
    silent, telling = await engines(), await engines()
    events = {telling.port: {"events": publisher.endpoint, "replay": publisher.replay}}
    return await proxies([silent, telling], [await engines()], policy=POLICY, events=events), silent, telling


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_prompt_goes_where_its_beginning_is(
    engines: Any, proxies: Start, publisher: Publisher, path: str
) -> None:
    proxy, silent, telling = await with_events(engines, proxies, publisher)
    await told(proxy, publisher, stored(HASHES, TOKENS), until=4)
    body = {"prompt": TEXT} if "chat" not in path else {"messages": [{"role": "user", "content": TEXT}]}
    for _ in range(3):
        assert (await proxy.post(path, **body))[0] == 200
    assert (len(silent.seen), len(telling.seen)) == (0, 3)
    assert silent.tokenized + telling.tokenized == 3
    await told(proxy, publisher, CLEARED, until=0)
    # What it computed is not taken to be held: it would have said so.
    assert held(proxy) == 0


async def test_an_instance_that_was_away_is_known_again(engines: Any, proxies: Start, publisher: Publisher) -> None:
    proxy, _, telling = await with_events(engines, proxies, publisher)
    await told(proxy, publisher, stored(HASHES, TOKENS), until=4)
    telling.healthy = 500
    (member,) = [one for one in proxy.server.fleet if one.place.port == telling.port]
    for _ in range(3):
        proxy.server.parts.keeper._probed(member, Problem("it is ill"))
    assert held(proxy) == 0
    telling.healthy = 200
    member.health.suspect(0.0)
    proxy.server.parts.keeper._wake(member)
    await happens(lambda: member.up)
    assert held(proxy) == 4


async def test_without_a_tokenizer_prompts_go_somewhere(engines: Any, proxies: Start, publisher: Publisher) -> None:
    proxy, silent, telling = await with_events(engines, proxies, publisher)
    silent.tokenizer = telling.tokenizer = 404
    for _ in range(2):
        assert (await proxy.post(prompt=TEXT))[0] == 200
    assert (await proxy.post(prompt=[[1, 2], [3]]))[0] == 200
    assert (await proxy.post(prompt=None))[0] == 200


async def test_instances_that_are_added_can_tell_too(engines: Any, proxies: Start, publisher: Publisher) -> None:
    proxy: Running = await proxies([await engines()], [await engines()], policy=POLICY)
    telling = await engines()
    added = {"type": "prefill", "instance": telling.address}
    said = {"kv_events": publisher.endpoint, "kv_replay": publisher.replay}
    assert (await proxy.admin("/instances/add", **added, kv_events="nonsense"))[0] == 400
    assert (await proxy.admin("/instances/add", **added, **said))[0] == 200
    await told(proxy, publisher, stored(HASHES, TOKENS), until=4)
    assert (await proxy.post(prompt=TEXT))[0] == 200
    assert len(telling.seen) == 1
    assert (await proxy.admin("/instances/remove", **added))[0] == 200
    await happens(lambda: not proxy.server.parts.knowing.listens)
    assert held(proxy) == 0
    # Added again without events, it is taken to hold what it computes.
    assert (await proxy.admin("/instances/add", **added))[0] == 200
    for letter in "abcd":
        assert (await proxy.post(prompt=letter * 64))[0] == 200
    assert len(telling.seen) > 1
    assert f"prefill/{telling.address}" in proxy.server.parts.dispatcher._assumed._held


async def test_an_instance_that_is_added_again_at_once_still_tells(
    engines: Any, proxies: Start, publisher: Publisher
) -> None:
    """Before anybody has seen that it was removed."""
    proxy, _, telling = await with_events(engines, proxies, publisher)
    named = {"type": "prefill", "instance": telling.address}
    keeper, knowing = proxy.server.parts.keeper, proxy.server.parts.knowing
    (member,) = [one for one in proxy.server.fleet if one.place.port == telling.port]
    assert (await proxy.admin("/instances/remove", **named))[0] == 200
    await happens(lambda: member.removed)
    await keeper.add_verified(member.place, member.kind)
    await asyncio.sleep(3 * LOOK_SECONDS)
    assert knowing.listens
    await told(proxy, publisher, stored(HASHES, TOKENS), until=4)


async def test_the_pool_has_what_its_master_lists(engines: Any, proxies: Start, publisher: Publisher) -> None:
    """Once an engine has said which block it is; and it stays when the engine forgets it."""
    table = Table()
    table.held = {("default", f"model@{each.hex()}"): [Replica(1, PLACE, Status.COMPLETE)] for each in HASHES}
    served = Served(table)
    telling = await engines()
    events = {telling.port: {"events": publisher.endpoint, "replay": publisher.replay}}
    try:
        proxy: Running = await proxies([telling], [await engines()], policy=POLICY, events=events, pool=served.address)
        await told(proxy, publisher, stored(HASHES, TOKENS), until=4)
        match = proxy.server.parts.dispatcher.policy.prefixes.match
        blocks = of_tokens(TOKENS, 8, {}).blocks
        number = next(one.number for one in proxy.server.parts.dispatcher.policy.instances() if one.name == "store")
        await happens(lambda: match(blocks, (1 << 16) - 1).holds(number))
    finally:
        served.close()
