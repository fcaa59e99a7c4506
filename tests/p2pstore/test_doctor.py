"""What the doctor finds: with a node at the other end, with nothing there, and with what is broken."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2pstore import doctor
from p2pstore.config import Settings
from p2pstore.doctor import Check, State, examine
from p2pstore.home import Home
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node, NodeOptions


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home")


@pytest.fixture
def metadata() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def node(metadata: MemoryServer) -> AsyncIterator[Node]:
    made = await Node.start(NodeOptions("there"), MemoryStore(metadata))
    yield made
    await made.close()


def settings(tmp_path: Path, **flags: object) -> Settings:
    return Settings.load(flags, environ={}, cwd=tmp_path, system=tmp_path / "none")


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


async def test_a_machine_without_anything_is_well(home: Home, tmp_path: Path) -> None:
    found = by_name(await examine(home, settings(tmp_path)))
    assert not [check for check in found.values() if check.state is State.BAD]
    assert found["loopback tcp"].detail == "1 MiB came"
    assert found["agent"].state is State.INFO
    assert {"python", "metadata", "clock", "locked memory", "pyverbs", "loopback rdma"} <= set(found)


async def test_a_metadata_server_that_does_not_answer_is_bad(home: Home, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"etcd://127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        found = by_name(await examine(home, settings(tmp_path, metadata=url)))
    assert found["metadata"].state is State.BAD
    assert url in found["metadata"].detail


async def test_a_port_that_somebody_has_is_bad(home: Home, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = by_name(await examine(home, settings(tmp_path, listen=f"127.0.0.1:{port}")))
    assert found[f"port {port}"].state is State.BAD


async def test_the_paths_to_a_peer(home: Home, tmp_path: Path, node: Node) -> None:
    found = by_name(await examine(home, settings(tmp_path), node.record.control))
    assert found["to there over tcp"].state is State.OK
    assert found["to there over rdma"].detail == "the peer offers no RDMA device"
    assert found["from there"].detail == "not looked at: no agent of ours runs"


async def test_the_paths_back_from_a_peer(
    home: Home, tmp_path: Path, node: Node, metadata: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await Node.start(NodeOptions("here"), MemoryStore(metadata))
    try:
        monkeypatch.setattr(doctor, "_agent_status", lambda _: {**ours.status(), "pid": 1})
        found = by_name(await examine(home, settings(tmp_path), node.record.control))
        assert found["from there over tcp"].state is State.OK
        assert found["from there over local"].state is State.INFO
        monkeypatch.setattr(doctor, "_agent_status", lambda _: {**ours.status(), "pid": 1, "node": "unknown"})
        found = by_name(await examine(home, settings(tmp_path), node.record.control))
        assert found["from there"].state is State.BAD
    finally:
        await ours.close()


async def test_a_peer_that_is_not_there_is_bad(home: Home, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        control = f"127.0.0.1:{free.getsockname()[1]}"
    found = by_name(await examine(home, settings(tmp_path), control))
    assert found[f"to {control}"].state is State.BAD
