"""Ways between two real nodes, there and back; and nodes that are no port scanners."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from engine.protocol import wire
from p2pstore.cluster.records import peer_address
from p2pstore.errors import RemoteProtocolError, SecretRefused
from p2pstore.peers import ways as module
from p2pstore.peers.checks import Check
from p2pstore.peers.ways import both_ways, there
from tests.p2pstore.cluster.hostile_peer import answer, hostile
from tests.p2pstore.nodes import Start, start
from tests.p2pstore.pull.test_lone_holder import server

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
            (tcp,) = [c for c in checks if c.subject == f"{pair}, tcp"]
            assert "4.0 MiB came at" in tcp.detail
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


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "x" * 70 + ".invalid"], ids=["unknown", "no name"])
async def test_a_name_that_leads_nowhere_is_no_matter_of_firewalls(start: Start, host: str) -> None:
    a = await start("a")
    (check,) = await asyncio.wait_for(both_ways(a.parts, f"{host}:7300"), WAIT)
    assert (check.verdict, check.code) == ("failed", 5)
    assert check.detail.startswith(f"peer {host}:7300 cannot be reached: no address is known for '{host}': ")
    assert check.advice == f"check the name; 'getent hosts {host}' shows what this host knows of it"


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


async def small_ones_pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A data port behind which what is large vanishes: refusals come, data do not."""
    while True:
        asked = wire.unpack_request(await reader.readexactly(wire.HEADER_LENGTH), peer="asker")
        if asked.length < 1000:
            writer.write(wire.pack_status(wire.Status.ADDRESS_REJECTED))
            await writer.drain()
            return
        await asyncio.sleep(WAIT)


async def test_a_way_on_which_large_packets_vanish(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STILL_SECONDS", 0.2)
    a, b = [await start(name) for name in "ab"]
    async with server(small_ones_pass) as port:
        monkeypatch.setattr(module, "peer_address", lambda record: replace(peer_address(record), data_port=port))
        checks, _ = await asyncio.wait_for(there(a.parts, b.record.control), WAIT)
    (tcp,) = [c for c in checks if c.subject == "a to b, tcp"]
    assert (tcp.verdict, tcp.code) == ("failed", 5)
    assert "only 0 B came" in tcp.detail
    assert "(MTU)" in tcp.detail
    assert "mtu 1500" in tcp.advice


async def test_a_way_that_is_slow_is_none_that_is_broken(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOVE_SECONDS", 0.3)
    monkeypatch.setattr(module, "STILL_SECONDS", 0.2)
    a, b = [await start(name) for name in "ab"]
    b.upload_limit.set(1 << 20)
    came, wait = [0], asyncio.wait

    class Counting(module._Counting):
        def filled(self, count: int) -> None:
            super().filled(count)
            came[0] += count

    async def until_more_came(tasks: set[asyncio.Future[Any]], *, timeout: float | None = None, **how: Any) -> object:
        """However slow the day."""
        if timeout == module.STILL_SECONDS:
            before = came[0]
            while came[0] == before and not all(task.done() for task in tasks):  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.01)
        return await wait(tasks, timeout=timeout, **how)

    monkeypatch.setattr(module, "_Counting", Counting)
    monkeypatch.setattr(asyncio, "wait", until_more_came)
    checks, _ = await asyncio.wait_for(there(a.parts, b.record.control), WAIT)
    assert verdicts(checks)["a to b, tcp"] == "ok", checks


async def test_a_peer_of_before_has_no_sample(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = [await start(name) for name in "ab"]

    async def none(_: str) -> None:
        return None

    monkeypatch.setattr(a.parts.client, "sample", none)
    checks, _ = await asyncio.wait_for(there(a.parts, b.record.control), WAIT)
    assert verdicts(checks)["a to b, tcp"] == "ok"


@pytest.mark.parametrize("answer_", [b"[]", b"{}", b'{"address": 0, "length": 5}', b'{"address": 1, "length": -1}'])
async def test_a_sample_that_is_none(start: Start, answer_: bytes) -> None:
    a = await start("a")
    async with hostile(answer(answer_)) as control:
        with pytest.raises(RemoteProtocolError):
            await a.parts.client.sample(control)
