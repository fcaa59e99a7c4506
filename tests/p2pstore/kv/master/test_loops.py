"""A master runs on uvloop where that is installed, and just as well without."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from p2pstore.kv.master import loops
from p2pstore.kv.master.server import Master
from tests.p2pstore.kv.master.wire import Client, running


async def serve(done: list[str]) -> None:
    """A put, a value that is found, answers of more than the sockets hold, and a connection that brings garbage."""
    async with running() as master:
        client, other = await Client.to(master), await Client.to(master)
        await client.mount(b"a" * 16)
        await client.put(b"a" * 16, "k")
        assert await client("BatchExistKey", ["k", "none"], "default") == [True, False]
        await reads_late(client, master)
        other.writer.write(b"\0" * 20)
        await other.ended()
    done.append(type(asyncio.get_running_loop()).__module__)


async def reads_late(client: Client, master: Master) -> None:
    """Answers that do not fit into the socket: each goes out in pieces, and the next ones must come behind those."""
    for each in master.connections:
        assert each._transport is not None
        each._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 13)
    asked: deque[int] = deque()
    for number in range(400):
        asked.append(client.ask("BatchGetReplicaList", ["k"] * 200, "default"))
        if number >= 100:
            assert len(await client.answer(asked.popleft(), "BatchGetReplicaList")) == 200
    for sequence in asked:
        assert len(await client.answer(sequence, "BatchGetReplicaList")) == 200


def test_without_uvloop_it_is_pythons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    done: list[str] = []
    loops.run(serve(done))
    assert done == ["asyncio.unix_events"]


def test_uvloop_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace(run=taken.append))
    done: list[str] = []
    main = serve(done)
    loops.run(main)
    assert taken == [main]
    main.close()


def test_a_master_serves_on_the_real_uvloop() -> None:
    pytest.importorskip("uvloop", reason="NO TEST ON UVLOOP: it is not installed")
    done: list[str] = []
    loops.run(serve(done))
    assert done == ["uvloop"]


def test_a_loop_for_another_thread_is_of_the_same_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace(new_event_loop=lambda: "uvloop's"))
    assert loops.new() == "uvloop's"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    made = loops.new()
    made.close()
    assert isinstance(made, asyncio.AbstractEventLoop)


def test_an_error_of_the_master_has_nothing_to_do_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RuntimeError("of the master")

    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(RuntimeError, match="of the master") as raised:
        loops.run(fail())
    assert raised.value.__context__ is None
