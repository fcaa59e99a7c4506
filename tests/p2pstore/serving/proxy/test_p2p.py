"""KV cache from node to node: who fetches from whom, and what becomes of it when one of them fails."""

from __future__ import annotations

import asyncio
from typing import Any

from p2pstore.serving.events import Kind
from tests.p2pstore.serving.proxy.conftest import SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import (
    cut_off,
    say_nothing,
)


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
