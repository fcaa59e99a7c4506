"""A node has its ports, its name and its secret before it answers, and takes back what it said when it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.errors import NoSuchAddress
from engine.net import addresses, sockets
from engine.serving.segment_server import SegmentServer
from p2pstore.cluster import records
from p2pstore.cluster.records import peer_address
from p2pstore.errors import (
    ListenRefused,
    NodeNameTaken,
    RangeRefused,
    UsageError,
)
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import Put
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from tests.p2pstore.nodes import WAIT, Start, get, register, root, start
from tests.p2pstore.samples import read_tree
from tests.ports import reserved_port

__all__ = ["root", "start"]


async def test_a_second_live_node_of_one_name_is_refused(start: Start, tmp_path: Path) -> None:
    first = await start("a")
    with pytest.raises(NodeNameTaken, match=first.record.control):
        await start("a")
    assert (await first.registry.nodes(["a"]))["a"] == first.record
    await first.close()
    await start("a")


async def test_a_port_that_is_taken() -> None:
    with sockets.listen("127.0.0.1", 0) as listener:
        taken = NodeOptions("a", port=listener.getsockname()[1])
        with pytest.raises(UsageError, match="cannot listen"):
            await Node.start(taken, MemoryStore(MemoryServer()))


async def test_of_a_choice_of_ports_the_first_free_ones_are_taken(start: Start) -> None:
    first = reserved_port(9)
    options = {"port": first, "last_port": first + 8}
    with sockets.listen("127.0.0.1", first + 4):  # in the middle of the second three
        nodes = [await start(name, **options) for name in "ab"]
        found = [addresses.parse(node.record.control)[1] for node in nodes]
        assert found == [first, first + 6]
        assert [node.record.data_port for node in nodes] == [first + 2, first + 8]
        with pytest.raises(UsageError, match=f"no 3 ports between {first} and {first + 8} can be had together"):
            await start("c", **options)


async def test_the_record_of_a_dead_node_is_taken_over(start: Start, tmp_path: Path) -> None:
    other = await start("b")
    await other.registry.store.commit(
        [Put(records.node_key("a"), records.encode(records.NodeRecord("a", "127.0.0.1:1", "127.0.0.1:2", 3)), 0)]
    )
    made = await start("a")
    assert (await made.registry.nodes(["a"]))["a"] == made.record


async def test_listening_openly_takes_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ListenRefused):
        await Node.start(NodeOptions("a", host="0.0.0.0"), MemoryStore())


async def test_a_name_that_is_none_is_no_matter_of_secrets(tmp_path: Path) -> None:
    with pytest.raises(NoSuchAddress, match="no interface of this host and no host has this name"):
        await Node.start(NodeOptions("a", host="nosuch0"), MemoryStore())


async def test_three_ports_end_with_the_last_that_there_is() -> None:
    with pytest.raises(UsageError, match="takes 3 ports from 65534 on, and 65535 is the last"):
        await Node.start(NodeOptions("a", port=65534), MemoryStore())


async def test_a_secret_keeps_data_from_strangers_who_know_where_it_lies(
    start: Start, root: Path, tmp_path: Path
) -> None:
    a, b = [await start(name, secret=b"the cluster's own secret") for name in "ab"]
    await register(a, root)
    result = await get(b, tmp_path / "copy", transport="tcp")
    assert result.transport == "tcp"
    assert read_tree(tmp_path / "copy") == read_tree(root)
    (replica,) = a.holdings.replicas.values()
    stranger = peer_address(a.record)  # as etcd tells it
    with SegmentServer() as engine, pytest.raises(RangeRefused):
        await asyncio.to_thread(engine.read, stranger, replica.address, memoryview(bytearray(1)))
    assert a.engine.key not in records.encode(a.record).decode()


async def test_who_says_insecure_serves_mooncakes_own_clients(start: Start, root: Path) -> None:
    a = await start("a", secret=b"the cluster's own secret", insecure=True)
    await register(a, root)
    (replica,) = a.holdings.replicas.values()
    into = bytearray(1)
    with SegmentServer() as engine:
        await asyncio.to_thread(engine.read, peer_address(a.record), replica.address, memoryview(into))
    assert bytes(into) == b"{"


async def names(server: MemoryServer) -> list[str]:
    """What a listing shows, and what stands in the metadata, held or not."""
    return [item.key.removeprefix(records.OBJECTS) for item in server.range(records.OBJECTS, 0, "").items]


async def test_what_a_node_will_not_hold_again_leaves_no_name_behind(root: Path, tmp_path: Path) -> None:
    server = MemoryServer()
    state = tmp_path / "state"
    state.mkdir()
    lasting = await Node.start(NodeOptions("lasting", state=state), MemoryStore(server))
    passing = await Node.start(NodeOptions("passing"), MemoryStore(server))
    try:
        await register(lasting, root, "file")
        await lasting.register_memory("memory", b"m" * 100, hash_name="xxh3_128")
        await register(passing, root / "z", "passing-file")
        await passing.register_memory("passing-memory", b"p" * 100, hash_name="xxh3_128")
        await get(passing, tmp_path / "copy", "file")
        await get(lasting, tmp_path / "kept", "passing-memory")
        assert await names(server) == ["file", "memory", "passing-file", "passing-memory"]
    finally:
        await passing.close()
        assert await names(server) == ["file", "memory", "passing-memory"], "others hold what is left"
        await lasting.close()
    assert await names(server) == ["file", "passing-memory"], "an agent that starts again holds its files again"


async def test_a_node_ends_in_time_though_its_names_cannot_be_taken_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MemoryServer()
    node = await Node.start(NodeOptions("n"), MemoryStore(server))
    await register(node, root, "file")

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("p2pstore.assembly.CLOSE_SECONDS", 0.05)
    monkeypatch.setattr("p2pstore.cluster.registry.Registry.withdraw", hangs)
    await asyncio.wait_for(node.close(), WAIT)
