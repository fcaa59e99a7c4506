"""Registries of two nodes on one store, and what they publish."""

from __future__ import annotations

import pytest

from p2pstore.cluster.records import ObjectRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry
from p2pstore.metadata.memory import MemoryServer, MemoryStore

GOLD = ReplicaRecord("", "complete", "gold")
PARTIAL = ReplicaRecord("", "partial", "replica")


def thing(name: str, content: str, creator: str = "a", created: float = 1.0) -> ObjectRecord:
    return ObjectRecord(name, content, 10, 1 << 20, 1, 1, "file", "xxh3_128", creator, created)


async def registry(server: MemoryServer, node: str, store: MemoryStore | None = None) -> Registry:
    made = Registry(store or MemoryStore(server), node)
    made.lease = await made.store.grant(60)
    return made


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def a(server: MemoryServer) -> Registry:
    return await registry(server, "a")


@pytest.fixture
async def b(server: MemoryServer) -> Registry:
    return await registry(server, "b")
