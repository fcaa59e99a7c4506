"""Discovery: finds the sources of one pull, and keeps it told of who comes, who goes and who has which chunks.

Who holds the object comes from a watch of its replicas in the metadata store, or from addresses that the user gave. Of
each holder a *feed* reads the availability stream, over the control plane: bitmap first, then have-events. A feed that
breaks takes its source out of the pull, and tries again as long as the holder stays listed.

A holder that is listed and that the user named, too, has two feeds, under its node name and its control address; only
its record tells that they are for one holder. One of the two reads, and the other waits until that one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from engine.errors import MooncakeError, RangeRefused
from engine.net.backoff import SOONER, Backoff
from engine.transports.base import PeerAddress
from p2pstore.cluster import records
from p2pstore.cluster.batch_queue import BatchQueue
from p2pstore.cluster.news import Availability, Queued, Shared
from p2pstore.cluster.news_lines import HEARTBEAT_SECONDS
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord, ReplicaRecord, distance, peer_address
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.words import to_line
from p2pstore.errors import PeerBusy, PeerUnreachable, PeerWithdrew
from p2pstore.metadata.store import Changed, Removed, Snapshot
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.faults import Faults
from p2pstore.pull.owner import Pull
from p2pstore.pull.workers import Source
from p2pstore.swarm.events import Word
from p2pstore.swarm.gateway import ABROAD, SAME_ZONE, Claim
from p2pstore.swarm.granter import Grant

log = logging.getLogger(__name__)

MAX_SOURCES = 16
"""Peers that one pull is connected to at once; others wait until one leaves."""

MAX_COMPLETE = 2
"""Of these, so many that are listed as complete are tried first, so that somebody has what a newcomer lacks."""

NEAR_SAMPLE = 64
"""Of so many holders, drawn at random, those near by are tried next, for up to half of the places."""

RETRIES = Backoff(0.5, 5.0, SOONER)
"""Pauses between attempts to read a holder's feed."""

PUT_OFF = Backoff(0.5, 15.0, SOONER)
"""Pauses before a holder that the pull gave up is tried again, until it delivers."""

WHY_SECONDS = 5.0
"""How long a holder that refused a range, or is listed no more, is listened to for why: that may come after it."""

QUEUED_SECONDS = 2 * HEARTBEAT_SECONDS
"""A holder that has not said again for so long that our requests wait for their turn is not waited for."""

BEHIND_SECONDS = 0.05
"""How long a feed waits for a pull that is behind with its messages, before it looks again."""


MAX_UNSAID = 1024
"""Words that wait to be said to one source. It gives no grant before the last was answered, unless it means ill."""


class _Following:
    """One feed that reads a holder's stream: ``kicked`` makes it end, and ``over`` says that it has."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.kicked = asyncio.Event()
        self.over = asyncio.Event()


@dataclass
class _Tries:
    """How often a holder failed in a row: its stream, and then what the pull asked of it."""

    failures: int = 0
    drops: int = 0

    def pause(self, *, dropped: bool, delivered: bool, lasted: float) -> float:
        """It ended again: how long to leave it alone. A stream that lasted is no proof that data come."""
        if delivered:
            self.drops = 0
        if dropped:
            self.drops += 1
            return PUT_OFF.after(self.drops)
        self.failures = 1 if lasted > RETRIES.last else self.failures + 1
        return RETRIES.after(self.failures)


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
        self._peers = peers
        self._transports = transports
        self._seeds = seeds
        self._listening: dict[str, tuple[str, str]] = {}  # node: its control address, and what it knows us by
        self._words: dict[str, BatchQueue[bytes]] = {}  # what is to be said, by node
        self._unsaid: deque[Word] = deque()
        self._saying = False  # the loop is about to say them
        self._complaining: set[asyncio.Task[None]] = set()
        self._note = note
        self._feeds: dict[str, asyncio.Task[None]] = {}
        self._unlisted: dict[str, asyncio.TimerHandle] = {}  # by key: who is still listened to, until then at most
        self._unheard: set[str] = set()  # nodes that never sent anything, and did not hear what was said to them
        self._followed: dict[str, _Following] = {}  # by node name, whatever the key of the feed that reads
        self._node_of: dict[str, str] = {}  # by the key of the feed that read it last
        self._dropped: set[str] = set()  # keys of feeds whose holder the pull gave up
        self._banned: set[str] = set()
        self._out_of_reach: set[str] = set()
        self._busy: set[str] = set()
        self._places = asyncio.Semaphore(MAX_SOURCES)
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

    def say(self, word: Word) -> None:
        """Say something to a source that grants, at once. Any thread."""
        self._unsaid.append(word)
        if not self._saying:
            self._saying = True
            self._loop.call_soon_threadsafe(self._say)

    def _say(self) -> None:
        self._saying = False  # first: what is added from now on may come too late for this
        while self._unsaid:
            self._on_word(self._unsaid.popleft())

    def _on_word(self, word: Word) -> None:
        words = self._words.get(word.peer)
        if words is None:  # it has gone, and its grants with it
            return
        if words.full:
            self._followed[word.peer].kicked.set()
        else:
            words.put(to_line(word))

    async def _speak(self, node: str, control: str, listener: str) -> None:
        """Say to a source what there is to say to it, until its feed ends."""
        words = self._words[node]

        async def lines() -> AsyncIterator[bytes]:
            yield b"\n"  # the request is not sent before the first of its body
            while True:
                yield b"".join(await words.take())

        try:
            await self._client.say(control, self._manifest.digest, listener, lines)
        except MooncakeError as error:
            log.info("%s", error)
        except Exception:
            log.exception("speaking to %s failed", node)
        if not self._pull.bytes_by_node.get(node):
            self._unheard.add(node)
        self._followed[node].kicked.set()  # it does not hear us any more: begin anew

    def complain(self, node: str, chunk: int) -> None:
        """Tell a source that its bytes of a chunk were wrong, and the user what it says to that. Any thread."""
        self._loop.call_soon_threadsafe(self._on_wrong, node, chunk)

    def _on_wrong(self, node: str, chunk: int) -> None:
        control, _ = self._listening.get(node, ("", ""))
        if control:  # taken now: the source will have been given up a moment later
            asking = asyncio.create_task(self._complain(node, control, chunk), name=f"complaint to {node}")
            self._complaining.add(asking)
            asking.add_done_callback(self._complaining.discard)

    async def _complain(self, node: str, control: str, chunk: int) -> None:
        try:
            wrong = await self._client.complain(control, self._manifest.digest, chunk)
        except MooncakeError as error:
            log.info("%s", error)
        except Exception:
            log.exception("complaining to %s failed", node)
        else:
            if wrong:
                self._note(f"{node} has read its chunk {chunk} again: it is wrong there, too, and is served no more")
            elif wrong is False:
                self._note(
                    f"{node} has read its chunk {chunk} again: it is right there; something on the way changed it"
                )

    async def heard(self, seconds: float) -> None:
        """Wait for the answers to complaints, so long at most."""
        if self._complaining:
            await asyncio.wait(self._complaining, timeout=seconds)

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
            for node in list(self._unlisted):
                self._stays(node)
            feeds = [*self._feeds.values(), *self._complaining]
            self._feeds.clear()
            for feed in feeds:
                feed.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)  # each has logged what went wrong

    async def _watch(self, registry: Registry) -> None:
        prefix = records.replicas_prefix(self._manifest.digest)
        async with aclosing(registry.store.watch(prefix)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Snapshot):
                    now = {item.key[len(prefix) :]: records.decode(ReplicaRecord, item.value) for item in event.items}
                    for node in self._feeds.keys() - now.keys() - set(self._peers):
                        self._end(node)
                    complete = [node for node, record in now.items() if record and record.state == "complete"]
                    for node in await self._order(list(now), complete, registry):
                        self._begin(node, "")
                    self.looked = True
                elif isinstance(event, Changed):
                    self._begin(event.item.key[len(prefix) :], "")
                elif isinstance(event, Removed):
                    self._end(event.key[len(prefix) :])

    async def _order(self, nodes: list[str], complete: list[str], registry: Registry) -> list[str]:
        """Nodes in the order in which to try them: at random, but for a few that have everything, and those near by."""
        shuffled = random.sample(nodes, len(nodes))
        if len(nodes) <= MAX_SOURCES:
            return shuffled
        first = random.sample(complete, min(MAX_COMPLETE, len(complete)))
        found: dict[str, NodeRecord] = {}
        with contextlib.suppress(MooncakeError):  # then the order is by chance alone
            found = await registry.nodes(shuffled[:NEAR_SAMPLE])
        near = sorted(found, key=lambda node: distance(self._me, found[node]))
        first += [node for node in near if distance(self._me, found[node]) <= SAME_ZONE][: MAX_SOURCES // 2]
        return list(dict.fromkeys(first + shuffled))

    def _begin(self, node: str, control: str) -> None:
        self._stays(node)
        if node != self._me.node and node not in self._feeds:
            self._feeds[node] = asyncio.create_task(self._feed(node, control), name=f"feed {node}")

    def _end(self, node: str) -> None:
        """It is listed no more. If it is listened to, it may be about to say why, which comes by another way."""
        following = self._followed.get(node)
        if following is None or following.key != node:
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

    async def _feed(self, key: str, control: str) -> None:
        """Keep one holder in the pull, for as long as it is listed."""
        tries = _Tries()
        # A cancel that comes together with an answer may get lost in ``wait_for``, before Python 3.12.
        while key not in self._banned and self._feeds.get(key) is asyncio.current_task():
            other: _Following | None = None
            before = self._delivered(key)
            self._dropped.discard(key)
            try:
                async with self._places:
                    began = self._loop.time()
                    other = await self._follow(key, control)
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

    async def _follow(self, key: str, control: str) -> _Following | None:
        """Read a holder's stream until it breaks, ends, or the planner gives the source up.

        Returns at once, with the feed that does so, where another reads it already.
        """
        record = await self._record(key, control)
        node = record.node
        if node in self._banned:
            self._banned.add(key)
            return None
        names = self._transports(peer_address(record)) if node != self._me.node else ()
        if not names:
            self._out_of_reach.add(key)
            return None
        self._out_of_reach.discard(key)
        if node in self._followed:
            return self._followed[node]
        self._node_of[key] = node
        following = self._followed[node] = _Following(key)
        reading = asyncio.create_task(self._read(key, record, names))
        kicked = asyncio.create_task(following.kicked.wait())
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
                self._listening.pop(node, None)
                self._pull.remove(node)
                del self._followed[node]
                following.over.set()
        return None

    async def _read(self, key: str, record: NodeRecord, names: tuple[str, ...]) -> None:
        """Hand what a holder says to the pull, no faster than that takes it, and speak to it where it grants."""
        peer = peer_address(record)
        away = distance(self._me, record)
        grants = record.node not in self._unheard  # it may be what lies between that takes no body without an end
        stream = self._client.availability(
            record.control, self._manifest, seeds=self._seeds, grants=grants, abroad=away == ABROAD
        )
        speaking: asyncio.Task[None] | None = None
        try:
            async with aclosing(stream) as news:  # type: ignore[type-var]
                async for item in news:
                    while self._pull.behind:  # noqa: ASYNC110 - its thread has better things to do than to tell of it
                        await asyncio.sleep(BEHIND_SECONDS)
                    if isinstance(item, Availability):
                        source = Source(record.node, replace(peer, key=item.key), item.address, names)
                        self._listening[record.node] = record.control, item.listener
                        self._busy.clear()
                        self._faults.clear(key)
                        self.withdrew.pop(key, None)
                        if item.grants:
                            self._words[record.node] = BatchQueue(MAX_UNSAID)
                            speaking = asyncio.create_task(self._speak(record.node, record.control, item.listener))
                        self._pull.add(source, item.have, away, shared=item.shared, grants=item.grants)
                    elif isinstance(item, Grant):
                        self._pull.granted(Grant(record.node, item.number, item.run, item.window, item.lead))
                    elif isinstance(item, Claim):
                        self._pull.claims(record.node, item)
                    elif isinstance(item, Shared):
                        self._pull.shared(record.node, item.shared)
                    elif isinstance(item, Queued):
                        self._queued_at = self._loop.time()
                    else:
                        self._pull.has(record.node, item, grants=speaking is not None)
        finally:
            self._words.pop(record.node, None)
            if speaking is not None:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)

    async def _record(self, key: str, control: str) -> NodeRecord:
        if control:
            return await self._client.node(control)
        if self._registry is not None:
            found = await self._registry.nodes([key])
            if key in found:
                return found[key]
        raise PeerUnreachable(peer=key, detail="its node record is gone")
