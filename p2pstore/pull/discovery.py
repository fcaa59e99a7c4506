"""Discovery: finds the sources of one pull, and keeps it told of who comes, who goes and who has which chunks.

Who holds the object comes from a watch of its replicas in the metadata store, or from addresses that the user gave. Of
each holder a *feed* reads the availability stream, over the control plane: bitmap first, then have-events. A feed that
breaks takes its source out of the pull, and tries again as long as the holder stays listed.

More holders than can be followed are followed by a random sample: a newcomer now and then takes another's place.

A holder that is listed and that the user named, too, has two feeds, under its node name and its control address; only
its record tells that they are for one holder. One of the two reads, and the other waits until that one ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing

from engine.errors import MooncakeError, RangeRefused
from engine.transports.base import PeerAddress
from p2pstore.cluster.line_connection import BEHIND_SECONDS
from p2pstore.cluster.news_lines import HEARTBEAT_SECONDS
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord, distance, peer_address
from p2pstore.cluster.registry import Registry
from p2pstore.errors import PeerBusy, PeerUnreachable, PeerWithdrew
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.complaints import SentComplaints
from p2pstore.pull.faults import Faults
from p2pstore.pull.feed import Feed
from p2pstore.pull.holders import MAX_SOURCES, Tries
from p2pstore.pull.listing import Came, Everybody, Listing
from p2pstore.pull.owner import Pull
from p2pstore.pull.places import Placed, Places
from p2pstore.pull.speaker import Speaker
from p2pstore.swarm.following import displaces
from p2pstore.swarm.gateway import ABROAD, SAME_ZONE

log = logging.getLogger(__name__)

WHY_SECONDS = 5.0
"""How long a holder that refused a range, or is listed no more, is listened to for why: that may come after it."""

QUEUED_SECONDS = 2 * HEARTBEAT_SECONDS
"""A holder that has not said again for so long that our requests wait for their turn is not waited for."""


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
        seeds: bool = True,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``registry`` is watched unless None; ``peers`` are control addresses given by the user.

        ``transports`` names the transports to try for a peer, the best first; none means that it is not used.
        ``seeds``: what is got is passed on. ``note`` takes lines for the user.
        """
        self._faults = Faults()
        self._pull = pull
        self._manifest = manifest
        self._me = me
        self._client = client
        self._registry = registry
        self._listing = Listing(registry, manifest.digest, me) if registry is not None else None
        self._peers = peers
        self._transports = transports
        self._seeds = seeds
        self.complaints = SentComplaints(client, manifest.digest, note)
        self.speaker = Speaker(
            client,
            manifest.digest,
            delivered=lambda node: bool(pull.bytes_by_node.get(node)),
            begin_anew=lambda node: self._followed[node].kicked.set(),
        )
        self._note = note
        self._feeds: dict[str, asyncio.Task[None]] = {}
        self._unlisted: dict[str, asyncio.TimerHandle] = {}  # by key: who is still listened to, until then at most
        self._followed: dict[str, Placed] = {}  # by node name, whatever the key of the feed that reads
        self._node_of: dict[str, str] = {}  # by the key of the feed that read it, or found it read, last
        self._dropped: set[str] = set()  # keys of feeds whose holder the pull gave up
        self._banned: set[str] = set()
        self._out_of_reach: set[str] = set()
        self._busy: set[str] = set()
        self._chance = random.SystemRandom()
        self._places = Places(MAX_SOURCES)
        self._placed: list[Placed] = []  # those that have one
        self._loop = asyncio.get_running_loop()
        self.withdrew: dict[str, PeerWithdrew] = {}
        """Why holders serve the object no more, by feed."""
        self._queued_at = -math.inf
        self.looked = registry is None
        """Whether the holders that are listed are known by now."""

    @property
    def last_fault(self) -> MooncakeError | None:
        """The latest fault of a holder that has not answered since."""
        return self._faults.last

    @property
    def candidates(self) -> int:
        """Holders that are known, not banned, and within reach of a transport."""
        return len(self._feeds.keys() - self._banned - self._out_of_reach)

    @property
    def waiting(self) -> bool:
        """Whether a holder that was reached is serving as many receivers as it can, and may have a place soon."""
        return bool(self._busy)

    @property
    def queued(self) -> bool:
        """Whether a holder has said lately that what is asked of it waits until it has served others."""
        return self._loop.time() - self._queued_at < QUEUED_SECONDS

    def dropped(self, node: str, banned: bool) -> None:  # noqa: FBT001 - the pull's callback
        """The planner gave a source up: forget it when banned, else begin its feed anew. Any thread."""
        self._loop.call_soon_threadsafe(self._on_drop, node, banned)

    def _on_drop(self, node: str, banned: bool) -> None:  # noqa: FBT001
        if banned:
            self._banned.add(node)
        if node in self._followed:
            self._dropped.add(self._followed[node].key)
            self._followed[node].kicked.set()

    async def run(self) -> None:
        """Find sources, for ever."""
        try:
            for control in self._peers:
                self._begin(control, control)
            if self._listing is not None:
                await self._watch(self._listing)
            else:
                await asyncio.Event().wait()
        finally:
            for node in list(self._unlisted):
                self._stays(node)
            feeds = list(self._feeds.values())
            self._feeds.clear()
            for feed in feeds:
                feed.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)  # each has logged what went wrong
            await self.complaints.end()

    async def _watch(self, listing: Listing) -> None:
        async with aclosing(listing.changes()) as changes:
            async for change in changes:
                if isinstance(change, Everybody):
                    for node in self._feeds.keys() - set(change.nodes) - set(self._peers):
                        self._end(node)
                    for node in change.nodes:
                        self._begin(node, "")
                    self.looked = True
                elif isinstance(change, Came):
                    self._begin(change.node, "", newcomer=True)
                else:
                    self._end(change.node)

    def _begin(self, node: str, control: str, *, newcomer: bool = False) -> None:
        self._stays(node)
        if node != self._me.node and node not in self._feeds:
            wins = newcomer and displaces(len(self._feeds) + 1, MAX_SOURCES, self._chance)
            feed = self._feed(node, control, wins=wins)
            self._feeds[node] = asyncio.create_task(feed, name=f"feed {node}")

    def _end(self, node: str) -> None:
        """It is listed no more. If it is listened to, it may be about to say why, which comes by another way."""
        placed = self._followed.get(node)
        if placed is None or placed.key != node:
            self._forget(node)
        elif node not in self._unlisted:
            self._unlisted[node] = self._loop.call_later(WHY_SECONDS, self._forget, node)

    def _stays(self, node: str) -> None:
        leaving = self._unlisted.pop(node, None)
        if leaving is not None:
            leaving.cancel()

    def _forget(self, node: str) -> None:
        self._stays(node)
        feed = self._feeds.pop(node, None)
        self._busy.discard(node)
        self._out_of_reach.discard(node)
        if feed is not None and feed is not asyncio.current_task():
            feed.cancel()

    async def _displaced(self, key: str) -> bool:
        """Whether one that has a place, and is as near as this newcomer, gives it up for it."""
        try:
            record = await self._record(key, "")
            reached = bool(self._transports(peer_address(record)))
        except MooncakeError:
            return False
        if not self._places.full:
            return False  # one has become free meanwhile
        if not reached or record.node in self._banned or record.node in self._followed:
            return False  # it would leave the place at once
        complete = self._listing.complete if self._listing is not None else set()
        kept = complete.union(self._peers, (self._node_of[each] for each in self._peers if each in self._node_of))
        others = [each for each in self._placed if each.may_go(kept, near=self._is_near(record))]
        if others:
            self._chance.choice(others).kicked.set()
        return bool(others)

    def _is_near(self, record: NodeRecord) -> bool:
        return distance(self._me, record) <= SAME_ZONE

    async def _feed(self, key: str, control: str, *, wins: bool) -> None:
        """Keep one holder in the pull, for as long as it is listed; if it ``wins``, at once, in place of another."""
        tries = Tries()
        while key not in self._banned and self._feeds.get(key) is asyncio.current_task():
            other: Placed | None = None
            before = self._delivered(key)
            self._dropped.discard(key)
            began = self._loop.time()
            try:
                await self._places.take(first=wins and self._places.full and await self._displaced(key))
                wins = False
                placed = Placed(key)
                self._placed.append(placed)
                try:
                    began = self._loop.time()
                    other = await self._follow(placed, control)
                finally:
                    self._placed.remove(placed)
                    self._places.give()
            except PeerBusy as error:
                self._busy.add(key)
                log.info("%s", error)
            except PeerWithdrew as error:
                self._failed(key, error)
                self.withdrew[key] = error
                log.info("%s", error)
                self._note(str(error))
            except MooncakeError as error:
                self._failed(key, error)
                log.info("%s", error)
            except Exception as error:
                self._failed(key, MooncakeError(detail=f"the feed of {key} failed: {error!r}"))
                log.exception("the feed of %s failed", key)
            if key in self._unlisted:
                self._forget(key)
                return
            if other is not None:
                await other.over.wait()
                continue
            delivered = self._delivered(key) > before
            lasted = self._loop.time() - began
            await asyncio.sleep(tries.pause(dropped=key in self._dropped, delivered=delivered, lasted=lasted))

    def _delivered(self, key: str) -> int:
        """Verified bytes that came from the holder with that feed."""
        return self._pull.bytes_by_node.get(self._node_of.get(key, key), 0)

    def _failed(self, key: str, error: MooncakeError) -> None:
        self._busy.discard(key)
        self._faults.add(key, error)

    async def _follow(self, placed: Placed, control: str) -> Placed | None:
        """Read a holder's stream until it breaks, ends, or the planner gives the source up.

        Returns at once, with the feed that does so, where another reads it already.
        """
        key = placed.key
        record = await self._record(key, control)
        if self._feeds.get(key) is not asyncio.current_task():
            return None  # a cancel got lost on the way
        node = record.node
        if node in self._banned:
            self._banned.add(key)
            return None
        names = self._transports(peer_address(record)) if node != self._me.node else ()
        if not names:
            self._out_of_reach.add(key)
            return None
        self._out_of_reach.discard(key)
        self._node_of[key] = node
        if node in self._followed:
            return self._followed[node]
        self._followed[node] = placed
        placed.near = self._is_near(record)
        reading = asyncio.create_task(self._read(placed, record, names))
        kicked = asyncio.create_task(placed.kicked.wait())
        try:
            await asyncio.wait({reading, kicked}, return_when=asyncio.FIRST_COMPLETED)
            if isinstance(self._pull.fault_of(node), RangeRefused):
                await asyncio.wait({reading}, timeout=WHY_SECONDS)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            kicked.cancel()
            try:
                await asyncio.gather(reading, kicked, return_exceptions=True)  # raised above if it ended by itself
            finally:
                self.complaints.leave(node)
                self._pull.remove(node)
                del self._followed[node]
                placed.over.set()
        return None

    async def _read(self, placed: Placed, record: NodeRecord, names: tuple[str, ...]) -> None:
        """Hand what a holder says to the pull, no faster than that takes it, and speak to it where it grants."""
        away = distance(self._me, record)
        asked = {"seeds": self._seeds, "grants": self.speaker.hears(record.node), "abroad": away == ABROAD}

        def answers() -> None:
            self.complaints.follow(record.node, record.control)
            self._busy.clear()
            self._faults.clear(placed.key)
            self.withdrew.pop(placed.key, None)

        feed = placed.feed = Feed(self._pull, self.speaker, record, names, away, answers, self._queues)
        try:
            control, manifest = record.control, self._manifest
            if await self._client.converse(control, manifest, feed.hear, behind=lambda: self._pull.behind, **asked):
                return
            async with aclosing(self._client.availability(control, manifest, **asked)) as news:  # type: ignore[type-var]
                async for item in news:
                    while self._pull.behind:  # noqa: ASYNC110 - its thread has better things to do than to tell of it
                        await asyncio.sleep(BEHIND_SECONDS)
                    feed.hear(item)
        finally:
            await self.speaker.end(record.node)

    def _queues(self) -> None:
        self._queued_at = self._loop.time()

    async def _record(self, key: str, control: str) -> NodeRecord:
        if control:
            return await self._client.node(control)
        if self._registry is not None:
            found = await self._registry.nodes([key])
            if key in found:
                return found[key]
        raise PeerUnreachable(peer=key, detail="its node record is gone")
