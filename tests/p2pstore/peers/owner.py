"""What a peer server needs of a node: its record and its holdings, real ones, on an engine of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.net import addresses, sockets
from engine.serving.segment_server import SegmentServer
from p2pstore.cluster.records import NodeRecord
from p2pstore.cluster.secret import ClusterSecret
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.checker import Checker
from p2pstore.holding.holdings import Holdings
from p2pstore.metrics.counts import Counts
from p2pstore.objects.manifest import Manifest
from p2pstore.peers.peer_server import PeerServer
from tests.p2pstore.samples import record_of


class Owner:
    """A node as its peer server sees it."""

    def __init__(self, engine: SegmentServer) -> None:
        self.engine = engine
        self.catalog = Catalog(Path(":memory:"))
        self.holdings = Holdings(engine, self.catalog)
        self.counts = Counts()
        self.checker = Checker(self.holdings, self.holdings.give_up, lambda _: None)
        self.record = NodeRecord("owner", "", engine.segment_name, engine.data_port)

    async def hold(self, name: str, manifest: Manifest, data: bytes) -> Holding:
        """Hold an object in memory."""
        holding = Holding(record_of(name, manifest), "gold", None, (), (memoryview(data),))
        await self.holdings.add(holding, manifest)
        return holding


@asynccontextmanager
async def serving(secret: bytes | ClusterSecret | None = None, *, port: int = 0) -> AsyncIterator[tuple[Owner, str]]:
    """An owner and the control address of its server."""
    engine = await asyncio.to_thread(SegmentServer)
    owner = Owner(engine)
    server = PeerServer(owner, secret)  # type: ignore[arg-type]
    listener = sockets.listen("127.0.0.1", port)
    try:
        await server.start(listener)
        yield owner, addresses.join("127.0.0.1", listener.getsockname()[1])
    finally:
        await server.close()
        owner.catalog.close()
        await asyncio.to_thread(engine.close)
