"""A discovery among holders with real peer servers, and what it tells a pull."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Literal

import pytest

from engine.errors import MooncakeError
from engine.net.backoff import Backoff
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull import holders
from p2pstore.pull.discovery import Discovery
from p2pstore.pull.workers import Source
from p2pstore.swarm.gateway import Claim
from p2pstore.swarm.granter import Grant
from tests.p2pstore.peers.owner import Owner, serving
from tests.p2pstore.samples import MIB, content, manifest_of

DATA = content(3 * MIB)
MANIFEST = manifest_of({"": DATA}, MIB)
ME = NodeRecord("me", "127.0.0.1:1", "127.0.0.1:2", 3)
WAIT = 30.0


class Log:
    """What a pull is told by discovery, as a set of sources and what each has."""

    behind = False

    def __init__(self) -> None:
        self.sources: dict[str, set[int]] = {}
        self.bytes_by_node: dict[str, int] = {}
        self.faults: dict[str, MooncakeError] = {}
        self.shares: dict[str, bool] = {}
        self.grants: list[Grant] = []
        self.claimed: list[tuple[str, Claim]] = []
        self.times_added: dict[str, int] = {}
        self.granting: list[bool] = []
        self.changed = asyncio.Event()

    def fault_of(self, node: str) -> MooncakeError | None:
        return self.faults.get(node)

    def add(self, source: Source, have: Bitmap, _: int, *, shared: bool, grants: bool) -> None:
        self.granting.append(grants)
        self.shares[source.node] = shared
        self.sources[source.node] = set(have)
        self.times_added[source.node] = self.times_added.get(source.node, 0) + 1
        self.changed.set()

    def has(self, node: str, chunks: Sequence[int]) -> None:
        self.sources[node].update(chunks)
        self.changed.set()

    def shared(self, node: str, shared: bool) -> None:
        self.shares[node] = shared
        self.changed.set()

    def granted(self, grant: Grant) -> None:
        self.grants.append(grant)
        self.changed.set()

    def claims(self, node: str, claim: Claim) -> None:
        self.claimed.append((node, claim))
        self.changed.set()

    def remove(self, node: str) -> None:
        self.sources.pop(node, None)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), WAIT)


class World:
    """A metadata store, some holders with real peer servers, and one discovery."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.server = MemoryServer()
        self.client = PeerClient(None)
        self.log = Log()
        self.leases: dict[str, Registry] = {}
        self.transports: tuple[str, ...] = ("tcp",)
        self.task: asyncio.Task[None]  # of the discovery that was made last

    async def holder(self, name: str, *, state: Literal["complete", "partial"] = "complete") -> Owner:
        """A node that holds the object, and says so, or that it has but a part."""
        owner, control = await self.stack.enter_async_context(serving())
        owner.record = NodeRecord(name, control, owner.engine.segment_name, owner.engine.data_port)
        await owner.hold("n", MANIFEST, DATA)
        await self.announce(owner.record, state)
        return owner

    async def announce(self, record: NodeRecord, state: Literal["complete", "partial"] = "complete") -> None:
        registry = self.leases[record.node] = Registry(MemoryStore(self.server), record.node)
        registry.lease = await registry.store.grant(600)
        await registry.join(record)
        await registry.announce(MANIFEST.digest, ReplicaRecord(record.node, state, "gold"))

    async def discover(
        self, *, peers: Sequence[str] = (), watched: bool = True, note: Callable[[str], None] = lambda _: None
    ) -> Discovery:
        made = Discovery(
            self.log,  # type: ignore[arg-type]
            MANIFEST,
            ME,
            client=self.client,
            registry=Registry(MemoryStore(self.server), "me") if watched else None,
            peers=peers,
            transports=lambda _: self.transports,
            note=note,
        )
        task = self.task = asyncio.create_task(made.run())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.stack.push_async_callback(end)
        return made


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(holders, "RETRIES", Backoff(0.01, 5.0))
    async with AsyncExitStack() as stack:
        made = World(stack)
        stack.push_async_callback(made.client.close)
        yield made


ALL = {0, 1, 2}


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells of."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), WAIT)
