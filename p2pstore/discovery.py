"""Discovery: finds the sources of one pull, and keeps it told of who comes, who goes and who has which chunks.

Who holds the object comes from a watch of its replicas in the metadata store, or from addresses that the user gave. Of
each holder a *feed* reads the availability stream, over the control plane: bitmap first, then have-events. A feed that
breaks takes its source out of the pull, and tries again as long as the holder stays listed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

from engine.errors import MooncakeError
from engine.transports.base import PeerAddress
from p2pstore import records
from p2pstore.control.peer_client import Availability, Claims, PeerClient
from p2pstore.errors import PeerUnreachable, RemoteError, RemoteProtocolError, SecretRefused
from p2pstore.manifest import Manifest
from p2pstore.metadata.store import Changed, Removed, Snapshot
from p2pstore.pull import Pull, Source
from p2pstore.records import NodeRecord
from p2pstore.registry import Registry

log = logging.getLogger(__name__)

MAX_SOURCES = 16
"""Peers that one pull is connected to at once; others wait until one leaves."""

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 5.0
"""Between attempts to read a holder's feed; each failure doubles the first up to the last."""

HEDGE_SECONDS = 1.0
"""A holder that has not sent the manifest after so long is not waited for: another is asked too."""

SAME_HOST, SAME_ZONE, ELSEWHERE = 0, 1, 2
"""Distances, as the planner takes them."""


def peer_address(record: NodeRecord) -> PeerAddress:
    """How the engine reaches a node. Raises ``RemoteProtocolError`` for a record without a usable segment name."""
    host, separator, port = record.segment.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < record.data_port < 65536:
        raise RemoteProtocolError(peer=record.node, detail="its node record has no usable address")
    return PeerAddress(
        segment=record.segment,
        host=host.strip("[]"),
        data_port=record.data_port,
        host_id=record.host_id,
        local_socket=record.local_socket,
    )


def distance(mine: NodeRecord, other: NodeRecord) -> int:
    """How far another node is."""
    if mine.host_id and mine.host_id == other.host_id:
        return SAME_HOST
    return SAME_ZONE if mine.zone and mine.zone == other.zone else ELSEWHERE


class Discovery:
    """The sources of one pull. Use ``run`` as a task, and cancel it to end every feed."""

    def __init__(
        self,
        pull: Pull,
        manifest: Manifest,
        me: NodeRecord,
        *,
        client: PeerClient,
        registry: Registry | None,
        peers: Sequence[str],
        transports: Callable[[PeerAddress], tuple[str, ...]],
    ) -> None:
        """``registry`` is watched unless None; ``peers`` are control addresses given by the user.

        ``transports`` names the transports to try for a peer, the best first; none means that it is not used.
        """
        self.last_fault: MooncakeError | None = None
        self._pull = pull
        self._manifest = manifest
        self._me = me
        self._client = client
        self._registry = registry
        self._peers = peers
        self._transports = transports
        self._feeds: dict[str, asyncio.Task[None]] = {}
        self._kick: dict[str, asyncio.Event] = {}
        self._banned: set[str] = set()
        self._out_of_reach: set[str] = set()
        self._places = asyncio.Semaphore(MAX_SOURCES)
        self._loop = asyncio.get_running_loop()

    @property
    def candidates(self) -> int:
        """Holders that are known, not banned, and within reach of a transport."""
        return len(self._feeds.keys() - self._banned - self._out_of_reach)

    def dropped(self, node: str, banned: bool) -> None:  # noqa: FBT001 - the pull's callback
        """The planner gave a source up: forget it when banned, else begin its feed anew. Any thread."""
        self._loop.call_soon_threadsafe(self._on_drop, node, banned)

    def _on_drop(self, node: str, banned: bool) -> None:  # noqa: FBT001
        if banned:
            self._banned.add(node)
        if node in self._kick:
            self._kick[node].set()

    async def run(self) -> None:
        """Find sources, for ever."""
        try:
            for control in self._peers:
                self._begin(control, control)
            if self._registry is not None:
                await self._watch(self._registry)
            else:
                await asyncio.Event().wait()
        finally:
            feeds = list(self._feeds.values())
            for feed in feeds:
                feed.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)

    async def _watch(self, registry: Registry) -> None:
        prefix = records.replicas_prefix(self._manifest.digest)
        async with aclosing(registry.store.watch(prefix)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Snapshot):
                    now = {item.key[len(prefix) :] for item in event.items}
                    for node in set(self._feeds) - now - set(self._peers):
                        self._end(node)
                    for node in now:
                        self._begin(node, "")
                elif isinstance(event, Changed):
                    self._begin(event.item.key[len(prefix) :], "")
                elif isinstance(event, Removed):
                    self._end(event.key[len(prefix) :])

    def _begin(self, node: str, control: str) -> None:
        if node != self._me.node and node not in self._feeds:
            self._kick[node] = asyncio.Event()
            self._feeds[node] = asyncio.create_task(self._feed(node, control), name=f"feed {node}")

    def _end(self, node: str) -> None:
        feed = self._feeds.pop(node, None)
        self._kick.pop(node, None)
        if feed is not None:
            feed.cancel()

    async def _feed(self, node: str, control: str) -> None:
        """Keep one holder in the pull, for as long as it is listed."""
        pause = FIRST_RETRY_SECONDS
        kick = self._kick[node]
        while node not in self._banned:
            kick.clear()
            try:
                async with self._places:
                    began = self._loop.time()
                    await self._follow(node, control, kick)
            except MooncakeError as error:
                self.last_fault = error
                log.info("%s", error)
            if self._loop.time() - began > LAST_RETRY_SECONDS:
                pause = FIRST_RETRY_SECONDS  # it served for a while
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RETRY_SECONDS)

    async def _follow(self, node: str, control: str, kick: asyncio.Event) -> None:
        """Read a holder's stream until it breaks, ends, or the planner gives the source up."""
        record = await self._record(node, control)
        if record.node == self._me.node:
            return
        if record.node in self._banned:
            self._banned.add(node)
            return
        names = self._transports(peer_address(record))
        if not names:
            return
        reading = asyncio.create_task(self._read(record, names))
        kicked = asyncio.create_task(kick.wait())
        if record.node != node:
            self._kick[record.node] = kick
        try:
            await asyncio.wait({reading, kicked}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            kicked.cancel()
            await asyncio.gather(reading, kicked, return_exceptions=True)
            self._pull.remove(record.node)

    async def _read(self, record: NodeRecord, names: tuple[str, ...]) -> None:
        peer = peer_address(record)
        async with aclosing(self._client.availability(record.control, self._manifest)) as news:  # type: ignore[type-var]
            async for item in news:
                if isinstance(item, Availability):
                    source = Source(record.node, peer, item.address, names)
                    self._pull.add(source, item.have, distance(self._me, record))
                elif isinstance(item, Claims):
                    self._pull.claims(record.node, item.chunks)
                else:
                    self._pull.has(record.node, item)

    async def _record(self, node: str, control: str) -> NodeRecord:
        if control:
            return await self._client.node(control)
        if self._registry is not None:
            found = await self._registry.nodes([node])
            if node in found:
                return found[node]
        raise PeerUnreachable(peer=node, detail="its node record is gone")


async def first_that_answers(
    client: PeerClient, controls: Sequence[tuple[str, str]], digest: str, note: Callable[[str], None]
) -> Manifest:
    """The manifest from the first of the (node, control address) pairs that sends a good one.

    They are asked in order, each as soon as the one before failed or kept silent for ``HEDGE_SECONDS``. Raises the
    last ``RemoteError`` or ``SecretRefused`` when none sends one.
    """
    last: RemoteError | SecretRefused = PeerUnreachable(peer="anyone", detail="nobody holds the object")
    left = list(reversed(controls))
    asked: dict[asyncio.Task[Manifest], str] = {}
    try:
        while left or asked:
            if left:
                node, control = left.pop()
                asked[asyncio.create_task(client.manifest(control, digest))] = node
            patience = HEDGE_SECONDS if left else None
            done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                node = asked.pop(task)
                try:
                    return task.result()
                except (RemoteError, SecretRefused) as error:
                    log.warning("%s: %s", node, error)
                    if left or asked:
                        note(f"{error}; asking another")
                    last = error
        raise last
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
