"""The master over sockets: every generation at once, what waits, who is not let in, and its end."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import Any

import pytest

from engine.errors import PortTaken, RemoteProtocolError
from engine.net import addresses
from engine.rpc.codes import Code
from engine.rpc.messages import ClientStatus, Memory, ObjectMeta, Replicas, ReplicateConfig
from engine.rpc.methods import GENERATIONS, NEWEST
from p2pstore.errors import StorageError
from p2pstore.kv.master import server as s
from p2pstore.kv.master.server import Master, MasterSettings
from p2pstore.kv.master.view import View
from tests.clocks import Clock
from tests.p2pstore.kv.master.wire import MIB, Client, running, until

A, B = b"a" * 16, b"b" * 16


async def test_clients_of_every_generation_put_and_get_at_once() -> None:
    async with running() as master:
        clients = {generation: await Client.to(master, generation) for generation in GENERATIONS}
        for number, (generation, client) in enumerate(clients.items(), 1):
            name = bytes([number]) * 16
            await client.mount(name, number=number)
            await client.put(name, f"of {generation}", 1000 + number)
        for generation, client in clients.items():
            for number, other in enumerate(GENERATIONS, 1):
                found = await client("GetReplicaList", f"of {other}", "default")
                assert isinstance(found, Replicas), (generation, other)
                (replica,) = found.replicas
                assert isinstance(replica.place, Memory)
                assert replica.place.size == 1000 + number
            keys = [f"of {other}" for other in GENERATIONS]
            assert await client("BatchExistKey", [*keys, "none"], "default") == [True] * len(keys) + [False]
            many = await client("BatchGetReplicaList", [*keys, "none"], "default")
            assert [type(each) for each in many] == [Replicas] * len(keys) + [Code]
        heard = {caller.generation for caller in master.callers.known.values()}
        assert heard == set(GENERATIONS)


async def test_many_calls_are_in_flight_on_a_connection() -> None:
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A)
        asked = [client.ask("ExistKey", f"k{number}", "default") for number in range(1000)]
        await client.put(A, "k")
        assert [await client.answer(sequence, "ExistKey") for sequence in reversed(asked)] == [False] * 1000
        assert await client("ExistKey", "k", "default") is True


async def test_calls_are_counted_by_name_and_by_caller() -> None:
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A)
        await client.put(A, "k")
        await client("BatchExistKey", ["k", "none"], "t")
        await client("ExistKey", "none", "default")
        await client("GetReplicaList", "none", "default")
        await client("BatchRemove", ["k", "none"], False, "default")
        assert master.counts["PutStart"] == [1, 0, 0, 0, 0]
        assert master.counts["BatchExistKey"] == [1, 0, 0, 2, 0]
        assert master.counts["GetReplicaList"] == [1, 1, 0, 0, 0]
        assert master.counts["BatchRemove"] == [1, 1, 0, 2, 2]
        (caller,) = master.callers.known.values()
        assert (caller.generation, caller.calls, caller.lookups, caller.found) == (NEWEST, 7, 4, 1)
        assert caller.failures == {Code.NOT_FOUND: 2, Code.LEASED: 1}
        assert caller.clients == {A}
        assert caller.tenants == {"t", "default"}


async def test_a_put_waits_for_another_write_of_its_key_and_other_calls_do_not() -> None:
    async with running() as master:
        first, second = await Client.to(master), await Client.to(master)
        await first.mount(A)
        assert isinstance(await first("PutStart", A, "k", 10, ReplicateConfig(), "default"), list)
        asked = second.ask("PutStart", B, "k", 10, ReplicateConfig(), "default")
        both = second.ask("BatchPutStart", B, ["k", "l"], [10, 10], ReplicateConfig(), "default")
        assert await second("ExistKey", "k", "default") is False
        await until(lambda: len(master.waiting) == 2)
        assert await first("PutEnd", A, ObjectMeta("k"), 4, "default") is Code.OK
        assert await second.answer(asked, "PutStart") is Code.EXISTS
        of_k, of_l = await second.answer(both, "BatchPutStart")
        assert of_k is Code.EXISTS
        assert isinstance(of_l, list)


async def test_a_put_is_taken_over_from_a_client_that_vanished() -> None:
    """It must never be told that the key exists while nobody can read it."""
    async with running() as master:
        first, second = await Client.to(master), await Client.to(master)
        await first.mount(A)
        await second.mount(B, number=2)
        await first("PutStart", A, "k", 10, ReplicateConfig(), "default")
        asked = second.ask("PutStart", B, "k", 10, ReplicateConfig(), "default")
        await until(lambda: len(master.waiting) == 1)
        await first.close()
        assert isinstance(await second.answer(asked, "PutStart"), list)
        assert await second("PutEnd", B, ObjectMeta("k"), 4, "default") is Code.OK
        assert await second("ExistKey", "k", "default") is True


async def test_who_waits_and_goes_away_is_forgotten() -> None:
    async with running() as master:
        first, second = await Client.to(master), await Client.to(master)
        await first.mount(A)
        await first("PutStart", A, "k", 10, ReplicateConfig(), "default")
        second.ask("PutStart", B, "k", 10, ReplicateConfig(), "default")
        await until(lambda: len(master.waiting) == 1)
        await second.close()
        await until(lambda: len(master.waiting) == 0)


async def test_a_client_is_lost_with_its_last_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as master:
        lost: list[bytes] = []
        monkeypatch.setattr(master.pool, "lost", lost.append)
        first, second = await Client.to(master), await Client.to(master)
        await first("Ping", A)
        await second("Ping", A)
        await first.close()
        await until(lambda: len(master.connections) == 1)
        assert lost == []
        await second.close()
        await until(lambda: lost == [A])


async def test_values_are_evicted_for_a_batch_that_needs_room() -> None:
    async with running(lease_ms=0) as master:
        client = await Client.to(master)
        await client.mount(A, 16 * MIB)
        for number in range(15):
            await client.put(A, f"old{number}", MIB)
        keys = [f"new{number}" for number in range(12)]
        places = await client("BatchPutStart", A, keys, [MIB] * 12, ReplicateConfig(), "default")
        assert [type(each) for each in places] == [list] * 12


async def test_an_old_segment_goes_with_time() -> None:
    clock = Clock()
    async with running(clock=clock, start_ttl=60.0, client_ttl=60.0, hinted_ttl=60.0) as master:
        client = await Client.to(master)
        await client.mount(A)
        await client.put(A, "k")
        clock.now += 61.0
        await until(lambda: not master.pool.exist(["k"])[0])


class Journal:
    """One that keeps, or fails to."""

    def __init__(self) -> None:
        self.refusing = ""
        self.records: list[bytes] = []
        self.fails = False

    def append(self, records: Any) -> None:
        if self.fails:
            raise StorageError(path="/state/log", detail="No space left on device")
        self.records += records


async def test_what_changed_is_kept_before_it_is_answered() -> None:
    journal = Journal()
    async with running(journal, log=True) as master:
        client = await Client.to(master)
        await client.mount(A)
        kept = len(journal.records)
        await client.put(A, "k")
        assert len(journal.records) > kept
        journal.fails = True
        places = await client("PutStart", A, "l", 10, ReplicateConfig(), "default")
        assert places is Code.PERSIST_FAILED or isinstance(places, list)
        assert await client("PutEnd", A, ObjectMeta("l"), 4, "default") is Code.PERSIST_FAILED
        journal.refusing = "the disk is full"
        assert await client("PutStart", A, "m", 10, ReplicateConfig(), "default") is Code.PERSIST_FAILED
        both = await client("BatchPutStart", A, ["m", "n"], [1, 1], ReplicateConfig(), "default")
        assert both == [Code.PERSIST_FAILED] * 2
        assert await client("ExistKey", "k", "default") is True
        assert any(each["name"] == "journal" and each["failures"] for each in master.supervisor.report())


async def test_a_defect_costs_the_call_and_not_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as master:
        client = await Client.to(master)

        def broken(*_: Any) -> Any:
            raise RuntimeError("a bug")

        for route in master.routes.values():
            if route.name == "Ping":
                monkeypatch.setattr(route, "handler", broken)
        with pytest.raises(RemoteProtocolError, match=r"it refuses to Ping .* its log says how"):
            await client("Ping", A)
        assert await client("ExistKey", "k", "default") is False
        (record,) = [each for each in master.supervisor.report() if each["name"] == "Ping"]
        assert record["last_error"] == "RuntimeError: a bug"
        assert master.counts["Ping"] == [1, 1, 0, 0, 0]


async def test_a_pulse_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as master:

        def broken() -> bool:
            raise RuntimeError("a bug")

        def failures() -> int:
            (record,) = [each for each in master.supervisor.report() if each["name"] == "pulse"]
            return int(record["failures"])

        monkeypatch.setattr(master.pool, "tick", broken)
        await until(lambda: failures() > 1)


async def test_only_those_who_are_allowed_get_in(caplog: pytest.LogCaptureFixture) -> None:
    async with running(allow=(ipaddress.ip_network("10.0.0.0/8"),)) as master:
        for _ in range(3):
            client = await Client.to(master)
            await client.ended()
        assert [record.message for record in caplog.records if "not among the networks" in record.message] == [
            "127.0.0.1 is not among the networks that may call this master; its connections are closed"
        ]
    async with running(allow=(ipaddress.ip_network("127.0.0.0/8"),)) as master:
        assert await (await Client.to(master))("ServiceReady") == "2.0.0"


async def test_the_wall_clock_may_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases, pings and what is told of callers go by a clock that never does."""
    async with running(client_ttl=60.0) as master:
        client = await Client.to(master)
        await client.mount(A)
        await client("Ping", A)
        await client.put(A, "k")
        real = time.time
        for jump in (86_400.0, -86_400.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            await asyncio.sleep(2 * s.PULSE_S)
            assert await client("ExistKey", "k", "default") is True
            assert await client("Remove", "k", False, "default") == Code.LEASED
            assert (await client("Ping", A)).status == ClientStatus.OK
            (facts,) = View(master).caller_facts()
            assert facts.last_ago < 3600
            found = await client("GetReplicaList", "k", "default")
            assert 0 < found.lease_ms <= 10_000


async def test_when_a_caller_was_heard_last_is_told_while_it_is_there_and_after_its_end() -> None:
    async with running() as master:
        client = await Client.to(master)
        await client("ServiceReady")
        (connection,) = master.connections
        connection.caller.last -= 1000.0  # when it came
        assert View(master).caller_facts()[0].last_ago < 900
        await client.close()
        await until(lambda: not master.connections)
        assert View(master).caller_facts()[0].last_ago < 900


async def test_at_the_limit_of_connections_the_stillest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "MAX_CONNECTIONS", 3)
    async with running() as master:
        clients = [await Client.to(master) for _ in range(3)]
        for client in (clients[1], clients[2], clients[0]):
            await client("ServiceReady")
        fourth = await Client.to(master)
        await clients[1].ended()
        for client in (clients[0], clients[2], fourth):
            assert await client("ServiceReady") == "2.0.0"


async def test_a_port_that_is_taken_is_said() -> None:
    async with running() as master:
        host, port = addresses.parse(master.address)
        other = Master(MasterSettings(host, port), master.pool)
        with pytest.raises(PortTaken):
            await other.start()
        await other.stop()


async def test_its_end_lets_answers_go_out_and_closes_connections() -> None:
    async with running() as master:
        client = await Client.to(master)
        asked = client.ask("ServiceReady")
        await until(lambda: master.counts["ServiceReady"][0] == 1)
        await master.stop()
        assert await client.answer(asked, "ServiceReady") == "2.0.0"
        await client.ended()
        with pytest.raises(OSError):
            await asyncio.open_connection(*addresses.parse(master.address))
        await master.stop()
