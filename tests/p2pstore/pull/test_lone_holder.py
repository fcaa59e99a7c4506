"""Whatever is the matter with the only holder: a get ends by its bound, with the right cause, or is whole; never silent.

The bounds are tried on a clock that runs fast; connections have short timeouts. The holder is a real node, of whose two
ports one or both are taken by a fake.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.net import sockets
from engine.net.backoff import Backoff
from engine.protocol import wire
from engine.transports.tcp import TcpTransport
from p2pstore.cluster import peer_requests
from p2pstore.errors import (
    BadManifest,
    ChunkMismatch,
    MooncakeError,
    NoLivePeer,
    PeerHasNot,
    PeerStalled,
    PeerUnreachable,
    RemoteProtocolError,
    SecretRefused,
    SourceSilent,
)
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull import get as get_module
from p2pstore.pull import hope, pipeline, run
from p2pstore.pull.get import GetRequest
from tests.p2pstore.cluster.hostile_peer import answer
from tests.p2pstore.samples import MIB, content
from tests.ports import closed_port

DATA = content(3 * MIB, 11)
SPEED = 60
"""Seconds of the bounds' clock in one of the test's."""

TIMEOUT = 0.3
"""Seconds, of the test, for a connection or an answer."""

WAIT = 60.0
LONGEST = max(hope.NO_BYTE_SECONDS, hope.NO_SOURCE_SECONDS)

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Serve = Callable[[Reader, Writer], Awaitable[None]]
Reply = Callable[[str], Awaitable[bytes | None]]


MOST_AT_ONCE = LONGEST / 5
"""Seconds of the bounds' clock that pass between two looks at it, on however slow a day: no bound is over before what
it is for was tried."""


class Clock:
    """The clock of the bounds, faster than the test's."""

    def __init__(self) -> None:
        self.speed = SPEED
        self._now, self._seen = 0.0, time.monotonic()

    def __call__(self) -> float:
        now = time.monotonic()
        self._now, self._seen = self._now + min((now - self._seen) * self.speed, MOST_AT_ONCE), now
        return self._now


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """The port of a server that does this with each connection, and closes it then."""
    tasks: set[asyncio.Task[None]] = set()

    async def each(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()
        tasks.discard(task)

    made = await asyncio.start_server(each, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# What a data port may do


async def silent_after_connect(reader: Reader, _: Writer) -> None:
    await reader.read(0)
    await asyncio.sleep(WAIT)


async def silent_after_the_request(reader: Reader, _: Writer) -> None:
    await reader.readexactly(wire.HEADER_LENGTH)
    await asyncio.sleep(WAIT)


async def silent_after_the_status(reader: Reader, writer: Writer) -> None:
    await reader.readexactly(wire.HEADER_LENGTH)
    writer.write(wire.pack_status(wire.Status.OK))
    await asyncio.sleep(WAIT)


async def a_byte_now_and_then(reader: Reader, writer: Writer) -> None:
    await silent_until_asked(reader, writer)
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(TIMEOUT / 2)


async def silent_until_asked(reader: Reader, writer: Writer) -> wire.Request:
    asked = wire.unpack_request(await reader.readexactly(wire.HEADER_LENGTH), peer="getter")
    writer.write(wire.pack_status(wire.Status.OK))
    return asked


async def wrong_bytes(reader: Reader, writer: Writer) -> None:
    while True:
        asked = await silent_until_asked(reader, writer)
        writer.write(random.randbytes(asked.length))
        await writer.drain()


async def half_of_each_chunk(reader: Reader, writer: Writer) -> None:
    asked = await silent_until_asked(reader, writer)
    writer.write(random.randbytes(min(asked.length, MIB) // 2))
    await writer.drain()


async def closes(_: Reader, writer: Writer) -> None:
    writer.close()


async def closes_when_asked(reader: Reader, _: Writer) -> None:
    await reader.readexactly(wire.HEADER_LENGTH)


async def nonsense(reader: Reader, writer: Writer) -> None:
    await reader.readexactly(wire.HEADER_LENGTH)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
    await writer.drain()
    await reader.read()  # closing before the other has read would break the connection under what it says next


async def refuses_each_range(reader: Reader, writer: Writer) -> None:
    while True:
        await reader.readexactly(wire.HEADER_LENGTH)
        writer.write(wire.pack_status(wire.Status.ADDRESS_REJECTED))


DATA_PORTS: list[tuple[Serve, type[MooncakeError]]] = [
    (silent_after_connect, SourceSilent),
    (silent_after_the_request, SourceSilent),
    (silent_after_the_status, SourceSilent),
    (a_byte_now_and_then, SourceSilent),
    (half_of_each_chunk, NoLivePeer),
    (wrong_bytes, ChunkMismatch),
    (closes, NoLivePeer),
    (closes_when_asked, NoLivePeer),
    (nonsense, NoLivePeer),
    (refuses_each_range, NoLivePeer),
]


class World:
    """A holder of an object named "n", and a getter whose connections have short timeouts."""

    def __init__(self, holder: Node, getter: Node, clock: Clock) -> None:
        self.holder = holder
        self.getter = getter
        self.clock = clock
        self.notes: list[str] = []

    async def pretend(self, **fields: Any) -> None:
        """The record of the holder says this instead."""
        record = replace(self.holder.record, host_id="", local_socket="", **fields)
        await self.holder.registry.join(record)

    async def get(self, dest: Path) -> Any:
        return await asyncio.wait_for(self.getter.get(GetRequest("n", dest, transport="tcp"), self.hear), WAIT)

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "note":
            self.notes.append(event["text"])


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    clock = Clock()
    monkeypatch.setattr(get_module, "Pipeline", functools.partial(pipeline.Pipeline, clock=clock))
    monkeypatch.setattr(pipeline, "QUIET_SECONDS", TIMEOUT / 2)
    monkeypatch.setattr(run, "EVENT_SECONDS", hope.MAX_STEP_SECONDS / SPEED / 2)
    for name in (
        "p2pstore.swarm.peer.BACKOFF",
        "p2pstore.pull.holders.RETRIES",
        "p2pstore.pull.holders.PUT_OFF",
    ):
        monkeypatch.setattr(name, Backoff(0.5 / SPEED, 4.0 / SPEED))
    for name in ("CONNECT_SECONDS", "SILENCE_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(peer_requests, name, TIMEOUT)
    monkeypatch.setattr("p2pstore.peers.peer_server.HEARTBEAT_SECONDS", TIMEOUT / 4)
    (tmp_path / "source").write_bytes(DATA)
    metadata = MemoryServer()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("holder", "getter"):
            made.append(await Node.start(NodeOptions(name), MemoryStore(metadata)))
            stack.push_async_callback(made[-1].close)
        made[1].engine.use(TcpTransport(connect_timeout=TIMEOUT, stall_timeout=TIMEOUT))
        await made[0].register(tmp_path / "source", "n", hash_name="xxh3_128", chunk_size=MIB)
        yield World(made[0], made[1], clock)


async def ends(world: World, dest: Path, expected: type[MooncakeError]) -> MooncakeError:
    """Get it: it fails as expected, within the bound, with a word on the way, and nothing stands at its destination."""
    with pytest.raises(expected) as caught:
        await world.get(dest)  # which waits no longer than ``WAIT``
    assert not os.path.lexists(dest)  # noqa: ASYNC240 - nothing else runs
    assert world.notes, "not a word"
    return caught.value


@pytest.mark.parametrize(("serve", "expected"), DATA_PORTS, ids=[serve.__name__ for serve, _ in DATA_PORTS])
async def test_a_data_port(world: World, tmp_path: Path, serve: Serve, expected: type[MooncakeError]) -> None:
    async with server(serve) as port:
        await world.pretend(data_port=port)
        error = await ends(world, tmp_path / "dest", expected)
    assert error.exit_code == expected.exit_code
    if issubclass(expected, NoLivePeer):
        assert any("trying again for up to" in note for note in world.notes)
        assert f"127.0.0.1:{port}" in str(error)


async def test_a_data_port_that_refuses(world: World, tmp_path: Path) -> None:
    port = closed_port()
    await world.pretend(data_port=port)
    error = await ends(world, tmp_path / "dest", NoLivePeer)
    assert f"127.0.0.1:{port}" in str(error)


async def test_a_data_port_that_nobody_accepts_from(world: World, tmp_path: Path) -> None:
    with sockets.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        await world.pretend(data_port=port)
        error = await ends(world, tmp_path / "dest", SourceSilent)
    assert f"127.0.0.1:{port}" in str(error)


async def test_a_data_port_whose_queue_is_full(world: World, tmp_path: Path) -> None:
    """As behind a firewall that drops: not even the connection comes about."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        await world.pretend(data_port=port)
        error = await ends(world, tmp_path / "dest", SourceSilent)
    assert f"127.0.0.1:{port}" in str(error)
    assert "no answer" in str(error)


async def test_a_source_that_begins_to_deliver_late_is_no_failure(world: World, tmp_path: Path) -> None:
    world.clock.speed = 1  # else half a second would be too late
    await world.pretend(data_port=closed_port())
    work = asyncio.create_task(world.get(tmp_path / "dest"))
    while not world.notes:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    await world.pretend()  # its feed looks the holder up again, when the pull has given it up
    await work
    assert (tmp_path / "dest").read_bytes() == DATA


# What a control port may do


async def refuse(_: str) -> bytes:
    return answer(b"", "403 Forbidden")


async def busy(_: str) -> bytes:
    return answer(b"", "503 Busy")


async def has_not(_: str) -> bytes:
    return answer(b"", "404 Not Found")


async def garbage(_: str) -> bytes:
    return b"garbage\r\n\r\n"


async def say_nothing(_: str) -> None:
    await asyncio.sleep(WAIT)


async def hang_up(_: str) -> bytes:
    return b""


async def lie(_: str) -> bytes:
    return answer(b"{}")


CONTROL_PORTS: list[tuple[Reply, type[MooncakeError]]] = [
    (refuse, SecretRefused),
    (has_not, PeerHasNot),
    (garbage, PeerUnreachable),
    (hang_up, PeerUnreachable),
    (say_nothing, PeerStalled),
    (lie, BadManifest),
]


def http(reply: Reply) -> Serve:
    async def serve(reader: Reader, writer: Writer) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(await reply(request.split()[1].decode()) or b"")
        await writer.drain()

    return serve


@pytest.mark.parametrize(("reply", "expected"), CONTROL_PORTS, ids=[reply.__name__ for reply, _ in CONTROL_PORTS])
async def test_a_control_port_from_the_beginning(
    world: World, tmp_path: Path, reply: Reply, expected: type[MooncakeError]
) -> None:
    """Where the control port answers, the error says it at once; only silence has to be told of."""
    async with server(http(reply)) as port:
        await world.pretend(control=f"127.0.0.1:{port}")
        with pytest.raises(expected) as caught:
            await world.get(tmp_path / "dest")
    assert type(caught.value) is expected
    assert caught.value.exit_code in {4, 5, 7}
    if expected in {PeerStalled, PeerUnreachable}:
        assert any("trying again for up to" in note for note in world.notes)


NEWS: list[tuple[Reply, type[MooncakeError]]] = [
    (refuse, SecretRefused),
    (busy, NoLivePeer),
    (has_not, NoLivePeer),
    (garbage, NoLivePeer),
    (hang_up, NoLivePeer),
    (say_nothing, NoLivePeer),
    (lie, NoLivePeer),
]


def nothing_there(_: str) -> bytes:
    """A stream of news by one that has none of it."""
    line = f'{{"address": 1, "bitmap": "{Bitmap(3).to_text()}"}}\n'
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + line.encode()


async def has_nothing(path: str) -> bytes:
    return nothing_there(path)


@pytest.mark.parametrize(
    ("reply", "expected"), [*NEWS, (has_nothing, NoLivePeer)], ids=[*(r.__name__ for r, _ in NEWS), "has_nothing"]
)
async def test_a_control_port_that_gives_the_manifest_and_no_news(
    world: World, tmp_path: Path, reply: Reply, expected: type[MooncakeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hope, "BUSY_SECONDS", 60.0)
    manifest = world.holder.holdings.named("n")[0].digest
    known = world.holder.holdings.manifest(manifest)
    assert known is not None
    body = known.to_bytes()

    async def mixed(path: str) -> bytes | None:
        return answer(body) if "/manifests/" in path else await reply(path)

    async with server(http(mixed)) as port:
        await world.pretend(control=f"127.0.0.1:{port}")
        error = await ends(world, tmp_path / "dest", expected)
    assert error.exit_code == expected.exit_code


async def test_a_holder_that_goes_from_the_catalog_in_between(world: World, tmp_path: Path) -> None:
    world.holder.upload_limit.set(MIB // 4)
    work = asyncio.create_task(world.get(tmp_path / "dest"))
    while not world.getter.holdings.replicas:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    await world.holder.registry.store.revoke(world.holder.registry.lease)
    await world.holder.close()
    with pytest.raises(NoLivePeer) as caught:
        await work
    assert caught.value.exit_code == 5


async def test_wrong_answers_of_the_data_port_are_the_peers_fault(world: World, tmp_path: Path) -> None:
    async with server(nonsense) as port:
        await world.pretend(data_port=port)
        error = await ends(world, tmp_path / "dest", NoLivePeer)
    assert str(RemoteProtocolError(peer=f"127.0.0.1:{port}", detail="no status word")) in str(error)
