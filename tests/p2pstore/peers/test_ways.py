"""Ways between two real nodes, there and back; and nodes that are no port scanners."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from p2pstore.errors import SecretRefused
from p2pstore.peers import ways as module
from p2pstore.peers.checks import Check
from p2pstore.peers.ways import both_ways
from tests.p2pstore.cluster.test_peer_client import hostile
from tests.p2pstore.test_node import Start, start

__all__ = ["start"]

WAIT = 60.0


def verdicts(checks: list[Check]) -> dict[str, str]:
    return {c.subject: c.verdict for c in checks}


@pytest.mark.parametrize("secret", [None, b"the cluster's own secret"])
async def test_there_and_back(start: Start, secret: bytes | None) -> None:
    a, b = [await start(name, secret=secret) for name in "ab"]
    for peer in ("b", b.record.control):
        checks = await asyncio.wait_for(both_ways(a.parts, peer), WAIT)
        found = verdicts(checks)
        for pair in ("a to b", "b to a"):
            assert found[f"{pair}, control"] == "ok"
            assert found[f"{pair}, tcp"] == "ok"
        assert "failed" not in found.values(), checks


async def test_a_node_that_nobody_knows(start: Start) -> None:
    a = await start("a")
    (check,) = await both_ways(a.parts, "b")
    assert (check.verdict, check.code) == ("failed", 3)
    assert check.detail == "no live node is named 'b'"
    (check,) = await both_ways(a.parts, "127.0.0.1:1")
    assert (check.verdict, check.code) == ("failed", 5)


async def test_what_a_peer_answers_is_no_matter_of_firewalls(start: Start) -> None:
    a = await start("a", secret=b"one")
    b = await start("b", secret=b"other")
    (check,) = await both_ways(a.parts, b.record.control)
    assert (check.verdict, check.code) == ("failed", SecretRefused.exit_code)
    assert check.advice == SecretRefused(peer="b").hint
    assert "firewall" not in check.advice
    (check,) = await both_ways(a.parts, "127.0.0.1:1")
    assert "firewall" in check.advice


async def test_a_silent_peer_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATH_SECONDS", 0.2)
    a = await start("a")
    async with hostile(b"", stay=True) as silent:
        (check,) = await asyncio.wait_for(both_ways(a.parts, silent), WAIT)
    assert check.verdict == "failed"
    assert "no answer" in check.detail


async def test_a_data_port_that_is_closed(start: Start) -> None:
    a, b = [await start(name) for name in "ab"]
    await asyncio.to_thread(b.engine._data.close)
    checks = await asyncio.wait_for(both_ways(a.parts, "b"), WAIT)
    found = verdicts(checks)
    assert found["a to b, control"] == "ok"
    assert found["a to b, tcp"] == "failed"
    assert found["b to a, tcp"] == "ok"


async def test_a_node_tries_the_ways_to_the_asker_alone(start: Start) -> None:
    a = await start("a")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{a.record.control}/v1/paths?control=192.0.2.7:80") as answer:
            (check,) = (await answer.json())["checks"]
            assert check["verdict"] == "warning"
            assert "192.0.2.7" in check["detail"]
        for wrong in ("", "x", "127.0.0.1", "127.0.0.1:0"):
            async with session.get(f"http://{a.record.control}/v1/paths?control={wrong}") as answer:
                assert answer.status == 400


async def test_a_hosts_name_is_enough(start: Start) -> None:
    a, b = await start("a"), await start("host2-0f0f")
    checks = await asyncio.wait_for(both_ways(a.parts, "host2"), WAIT)
    assert verdicts(checks)[f"a to {b.name}, tcp"] == "ok"
