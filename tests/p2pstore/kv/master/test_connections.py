"""What a connection may bring that no client of ours would send, and what it may take of the master."""

from __future__ import annotations

import asyncio
import resource
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rpc import framing
from engine.rpc.calls import write_call
from engine.rpc.framing import MAX_FRAME
from engine.rpc.messages import ObjectMeta, ReplicateConfig
from engine.rpc.methods import METHODS, NEWEST
from engine.rpc.types import function_id, type_hash
from p2pstore.kv.master import connections as c
from p2pstore.kv.master import server as s
from p2pstore.kv.master.server import Master
from tests.p2pstore.kv.master.wire import Client, running, until

A, B = b"a" * 16, b"b" * 16
MANY = 1000


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of so many connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MANY + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"NO TEST OF {MANY} CONNECTIONS: this process may open {hard} files, and {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def serves(master: Master) -> None:
    """It goes on serving others."""
    client = await Client.to(master)
    assert await client("ServiceReady") == "2.0.0"
    await client.close()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(100), b"\xff" * 4096, bytes(20)],
    ids=["http", "tls", "ones", "zeros"],
)
async def test_another_protocol_ends_the_connection_and_is_said_once(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as master:
        for _ in range(3):
            client = await Client.to(master)
            client.writer.write(garbage)
            await client.ended()
        assert len([record for record in caplog.records if "no frame begins with" in record.message]) == 1
        assert sum(caller.malformed for caller in master.callers.known.values()) == 3
        await serves(master)


async def test_calls_before_the_garbage_are_answered() -> None:
    async with running() as master:
        client = await Client.to(master)
        asked = client.ask("ServiceReady")
        assert await client.answer(asked, "ServiceReady") == "2.0.0"
        client.writer.write(b"\0" * 20)
        await client.ended()


async def test_a_frame_that_is_too_long_ends_the_connection_at_its_header() -> None:
    async with running() as master:
        client = await Client.to(master)
        client.writer.write(framing.REQUEST.pack(21, 1, function_id("ExistKey"), MAX_FRAME, 0))
        await client.ended()
        assert master._kept == 0
        await serves(master)


async def test_lengths_that_lie_are_refused_and_the_connection_goes_on() -> None:
    async with running() as master:
        client = await Client.to(master)
        frame = bytearray(write_call(1, NEWEST, "BatchExistKey", (["a", "b"], "default")))
        at = frame.index(b"\x02\x01a")  # two keys, the first of one byte
        frame[at] = 200
        client.writer.write(bytes(frame))
        refused = await client.frame(1)
        assert refused.error == framing.BAD_ARGUMENTS
        client._sequence = 1
        assert await client("ExistKey", "a", "default") is False
        (caller,) = [each for each in master.callers.known.values() if each.connected]
        assert caller.malformed == 1


async def test_an_unknown_call_is_refused_counted_and_said_once_with_address_and_version(
    caplog: pytest.LogCaptureFixture,
) -> None:
    literal = b"\xfd\x80\x0c\x04\xff"
    body = type_hash(literal).to_bytes(4, "little") + b"\x04" + literal + b"\0\0" + bytes(8)
    async with running() as master:
        client = await Client.to(master, "0.3.12")
        await client.mount(A)
        await client.put(A, "k")
        for number in range(100, 105):
            client.writer.write(framing.request(number, function_id("ExistKey"), body))
            client.writer.write(framing.request(number + 10, function_id("DrainTheLake"), b""))
            assert (await client.frame(number)).error == framing.NO_FUNCTION
            assert (await client.frame(number + 10)).error == framing.NO_FUNCTION
        said = [record.message for record in caplog.records if "no release known here" in record.message]
        (caller,) = master.callers.known.values()
        name = f"function {function_id('DrainTheLake'):#010x}"
        assert caller.unknown == {"ExistKey": 5, name: 5}
        assert said == [
            f"{caller.address}, a client of 0.3.12, calls {call}, which no release known here does; refused"
            for call in ("ExistKey ((string, u64))", f"{name} ()")
        ]
        assert await client("ExistKey", "k", "default") is True


@given(st.binary(max_size=300))
@settings(max_examples=50)
def test_any_bytes_leave_the_master_serving(garbage: bytes) -> None:
    async def main() -> None:
        async with running() as master:
            client = await Client.to(master)
            client.writer.write(garbage)
            client.writer.write_eof()
            await client.ended()
            await serves(master)

    asyncio.run(main())


@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=100))
@settings(max_examples=50)
def test_any_body_of_a_call_is_answered(call: str, rest: bytes) -> None:
    async def main() -> None:
        async with running() as master:
            client = await Client.to(master)
            codec = METHODS[call].requests[NEWEST].codec
            body = codec.hash.to_bytes(4, "little") + b"\x0c" + codec.kind.literal + b"\0" if codec else b""
            client.writer.write(framing.request(7, METHODS[call].function, body + rest))
            await client.frame(7)
            await serves(master)

    asyncio.run(main())


async def test_a_call_cut_in_pieces_is_answered() -> None:
    async with running() as master:
        client = await Client.to(master)
        wire = write_call(1, NEWEST, "ExistKey", ("key", "default"))
        for place in range(len(wire)):
            client.writer.write(wire[place : place + 1])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.frame(1)).error == 0


async def test_idle_connections_cost_nothing_else(many_files: None) -> None:
    async with running() as master:
        clients = [await Client.to(master) for _ in range(MANY)]
        await serves(master)
        for client in clients[::100]:
            assert await client("ServiceReady") == "2.0.0"


async def test_slow_connections_hold_up_nobody_and_end(many_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has sent half a frame, and sends no more."""
    monkeypatch.setattr(s, "FRAME_S", 1.0)
    async with running() as master:
        wire = write_call(1, NEWEST, "ExistKey", ("key", "default"))
        clients = [await Client.to(master) for _ in range(MANY)]
        for client in clients:
            client.writer.write(wire[: len(wire) // 2])
        await until(lambda: len(master._partial) == MANY or not master.connections)
        await serves(master)
        for client in clients:
            await client.ended()
        assert master._kept == 0
        assert master._partial == set()
        await serves(master)


async def test_a_frame_may_not_take_for_ever_though_a_byte_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "FRAME_S", 0.2)
    monkeypatch.setattr(s, "SWEEP_S", 0.05)
    async with running() as master:
        client = await Client.to(master)
        client.writer.write(framing.REQUEST.pack(21, 1, function_id("ExistKey"), MAX_FRAME // 2, 0))

        async def drip() -> None:
            while True:
                client.writer.write(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        await client.ended()
        dripping.cancel()
        await until(lambda: not master.connections)


async def test_frames_of_all_connections_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "MAX_KEPT_BYTES", 3 << 20)
    async with running() as master:
        header = framing.REQUEST.pack(21, 1, function_id("ExistKey"), MAX_FRAME // 2, 0)
        small, large = await Client.to(master), await Client.to(master)
        small.writer.write(header + bytes(1 << 20))
        await until(lambda: master._kept > 1 << 20)
        large.writer.write(header + bytes(3 << 20))
        await large.ended()
        await until(lambda: len(master.connections) == 1)
        assert 1 << 20 < master._kept <= 3 << 20
        await serves(master)


async def test_a_client_that_does_not_read_its_answers_is_not_read_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_UNSENT_BYTES", 1 << 16)
    monkeypatch.setattr(c, "FLUSH_BYTES", 1 << 14)
    async with running() as master:
        client = await Client.to(master)
        client.writer.transport.get_extra_info("socket").setsockopt(6, 10, struct.pack("i", 4096))
        await client.mount(A)
        await client.put(A, "k")
        keys = ["k"] * 1000
        asked = []

        async def ask() -> None:
            for _ in range(300):
                asked.append(client.ask("BatchGetReplicaList", keys, "default"))
                await client.writer.drain()

        asking = asyncio.create_task(ask())
        await until(lambda: master.stuck)
        (stuck,) = master.stuck
        assert stuck._transport is not None
        assert stuck._transport.get_write_buffer_size() < 1 << 21
        await serves(master)
        while not asking.done() or asked:
            if asked:
                assert len(await client.answer(asked.pop(0), "BatchGetReplicaList")) == 1000
            else:
                await asyncio.sleep(0)
        assert not master.stuck


async def test_who_never_reads_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_UNSENT_BYTES", 1 << 16)
    monkeypatch.setattr(s, "UNSENT_S", 0.1)
    monkeypatch.setattr(s, "SWEEP_S", 0.05)
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A)
        await client.put(A, "k")
        for _ in range(300):
            client.ask("BatchGetReplicaList", ["k"] * 1000, "default")
        await until(lambda: not master.connections)
        assert not master.stuck


async def test_a_client_that_vanishes_between_start_and_end_leaves_no_value() -> None:
    async with running() as master:
        client, other = await Client.to(master), await Client.to(master)
        await client.mount(A)
        await other.mount(B, number=2)
        await client("PutStart", A, "k", 10, ReplicateConfig(), "default")
        client.writer.transport.abort()
        await until(lambda: len(master.connections) == 1)
        assert await other("ExistKey", "k", "default") is False
        assert isinstance(await other("PutStart", B, "k", 10, ReplicateConfig(), "default"), list)
        assert await other("PutEnd", B, ObjectMeta("k"), 4, "default") == 0
        assert await other("ExistKey", "k", "default") is True


async def test_of_whom_it_is_known_nobody_asks_again_of_which_generation_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A)
        await client.put(A, "k")
        monkeypatch.setattr(master.generations, "guess", None)
        assert len((await client("GetReplicaList", "k", "default")).replicas) == 1
        assert len(await client("BatchGetReplicaList", ["k", "none"], "default")) == 2


async def test_two_clients_of_one_id_are_both_served() -> None:
    async with running() as master:
        first, second = await Client.to(master), await Client.to(master, "0.3.11")
        await first.mount(A)
        await first.put(A, "k")
        await second.put(A, "l")
        for client in (first, second):
            for key in "kl":
                assert not isinstance(await client("GetReplicaList", key, "default"), int)


async def test_a_key_of_any_bytes_is_kept_as_it_is() -> None:
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A)
        for key in ("ä\n\0🐌", b"\xff\xfe".decode("utf-8", "surrogateescape"), "k" * (1 << 20)):
            await client.put(A, key)
            assert await client("BatchExistKey", [key, key + "x"], "default") == [True, False]
