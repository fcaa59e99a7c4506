"""Calls that go through all keys: in steps, each in turn, and over the wire beside others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from engine.errors import RemoteProtocolError
from engine.rpc.codes import Code
from engine.rpc.framing import Splitter
from engine.rpc.messages import Memory, ObjectMeta, Replica, ReplicateConfig
from engine.rpc.methods import METHODS, NEWEST
from p2pstore.kv.master import long_calls as l
from p2pstore.kv.master.long_calls import LongCall, LongCalls, answer_in_steps
from p2pstore.kv.pool import reads, walks
from p2pstore.kv.pool.walks import Steps, whole
from tests.p2pstore.kv.master.wire import MIB, SECONDS, Client, running

A = b"a" * 16
BY_REGEX = METHODS["GetReplicaListByRegex"].answers[NEWEST]


class Loop:
    """What is to be called back, and what was answered."""

    def __init__(self) -> None:
        self.soon: list[Any] = []
        self.told: list[Any] = []
        self.calls = LongCalls(self.soon.append, self.told.append)

    def begins(self, name: bytes, steps: int, error: Exception | None = None) -> None:
        def work() -> Steps[Any]:
            for step in range(steps):
                self.told.append((name, step))
                yield
            if error is not None:
                raise error
            return name

        self.calls.begin(LongCall(work(), self.told.append, b"refused"))

    def turns(self) -> None:
        while self.soon:
            self.soon.pop()()


def test_a_short_one_is_answered_at_once() -> None:
    loop = Loop()
    loop.begins(b"a", 0)
    assert loop.told == [b"a"]
    assert not loop.soon


def test_each_has_a_step_in_turn() -> None:
    loop = Loop()
    loop.begins(b"a", 3)
    loop.begins(b"b", 2)
    loop.turns()
    assert loop.told == [(b"a", 0), (b"b", 0), (b"a", 1), (b"b", 1), (b"a", 2), b"b", b"a"]
    assert len(loop.calls) == 0


def test_a_defect_costs_one_call() -> None:
    loop = Loop()
    error = RuntimeError("of ours")
    loop.begins(b"a", 1, error)
    loop.begins(b"b", 1)
    loop.turns()
    assert loop.told[2:] == [error, [b"refused"], b"b"]


def test_none_goes_on_once_they_are_closed() -> None:
    loop = Loop()
    loop.begins(b"a", 3)
    loop.begins(b"b", 3)
    loop.calls.close()
    loop.begins(b"c", 3)
    loop.turns()
    assert loop.told == [(b"a", 0), (b"b", 0)]
    assert len(loop.calls) == 0


@pytest.mark.parametrize("count", [0, 3, l.PIECE, 2 * l.PIECE, 70_000])
def test_an_answer_in_pieces_is_the_same(count: int) -> None:
    found = {f"k{number}": [Replica(number, Memory(1, 2, "tcp", "h:1"), 3)] for number in range(count)}
    steps = answer_in_steps(7, BY_REGEX, found)
    turns: list[None] = []
    frame = b"".join(whole(steps, lambda: turns.append(None)))
    (answer,) = Splitter(peer="master", answers=True).answers(frame)
    assert answer.sequence == 7
    assert BY_REGEX.read(answer.body) == found
    assert len(turns) >= count // l.PIECE - 1
    assert whole(answer_in_steps(7, BY_REGEX, Code.BAD_PARAMS))


async def test_others_are_answered_between_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "STEP_ENTRIES", 10)
    async with running() as master:
        one, other = await Client.to(master), await Client.to(master)
        await one.mount(A, 64 * MIB)
        keys = [f"k{number}" for number in range(1000)]
        for key in keys:
            await one.put(A, key)
        removing = one.ask("RemoveAll", True, "default")
        left = []
        while not left or left[-1]:
            left.append(sum(await other("BatchExistKey", keys, "default")))
        assert await one.answer(removing, "RemoveAll") == 1000
        assert any(0 < count < 1000 for count in left)


async def test_a_master_that_stops_goes_on_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "STEP_ENTRIES", 1)
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A, 64 * MIB)
        for number in range(1000):
            await client.put(A, f"k{number}")
        asked = client.ask("RemoveAll", True, "default")
        deadline = time.monotonic() + SECONDS
        while not len(master.long):
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
        await master.stop()
        left = len(master.pool.names("default"))
        assert 0 < left < 1000
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(master.pool.names("default")) == left
        with pytest.raises(ConnectionError):
            await client.answer(asked, "RemoveAll")


async def test_a_pattern_finds_and_removes_over_the_wire() -> None:
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A, 64 * MIB)
        for number in range(1500):
            await client.put(A, f"k{number}", config=None)
        found = await client("GetReplicaListByRegex", "^k", "default")
        assert len(found) == 1500
        assert await client("RemoveByRegex", "^k1", True, "default") == 611
        assert await client("RemoveAll", True, "default") == 1500 - 611


async def test_a_long_answer_arrives_whole() -> None:
    async with running(lease_ms=0) as master:
        client, other = await Client.to(master), await Client.to(master)
        await client.mount(A, 64 * MIB)
        keys = [f"{number:0300}" for number in range(3 * l.PIECE)]
        for first in range(0, len(keys), 500):
            some = keys[first : first + 500]
            await client("BatchPutStart", A, some, [10] * len(some), ReplicateConfig(), "default")
            await client("BatchPutEnd", A, [ObjectMeta(key) for key in some], 4, "default")
        asked = [client.ask("GetReplicaListByRegex", "0", "default") for _ in range(3)]
        assert await other("ExistKey", keys[0], "default") is True
        for each in asked:
            assert (await client.answer(each, "GetReplicaListByRegex")).keys() == set(keys)


async def test_a_slow_pattern_is_refused_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as master:
        client = await Client.to(master)
        for _ in range(3):
            assert await client("RemoveByRegex", "(a+)+$", True, "default") is Code.BAD_PARAMS
    said = [each for each in caplog.messages if "RemoveByRegex" in each]
    assert len(said) == 1
    assert "'(a+)+$' is no pattern, or a slow one" in said[0]


async def test_a_pattern_that_finds_too_much_is_not_only_called_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reads, "MAX_FOUND_BYTES", 0)
    async with running() as master:
        client = await Client.to(master)
        await client.mount(A, 64 * MIB)
        await client.put(A, "k")
        assert await client("GetReplicaListByRegex", "^k", "default") is Code.BAD_PARAMS
    assert "'^k' is no pattern, or a slow one, or finds more than one answer holds" in caplog.text


async def test_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(l, "MAX_LONG", 0)
    async with running() as master:
        client = await Client.to(master)
        with pytest.raises(RemoteProtocolError, match="go through all keys are under way; ask again later"):
            await client("RemoveAll", True, "default")
