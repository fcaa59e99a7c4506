"""A pull at work: discovery feeds it sources, and somebody decides when there is no hope left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

from engine.cgroups import processors
from engine.errors import MooncakeError, StorageError, TransportUnavailable
from engine.net.within import within
from engine.transports.base import PeerAddress
from p2pstore.errors import ChunkMismatch, NoLivePeer, SecretRefused, SourceSilent
from p2pstore.holding.parts import Parts
from p2pstore.objects.repeats import Repeats
from p2pstore.objects.waiting import to_its_end
from p2pstore.pull.destination import Destination
from p2pstore.pull.discovery import Discovery
from p2pstore.pull.hope import LEAST_BYTES, MOST_CHUNKS, NO_BYTE_SECONDS, Hope, Sight, Wait
from p2pstore.pull.owner import Pull
from p2pstore.pull.resolve import ResolvedName
from p2pstore.pull.tuning import Facts, Tuning, tuned
from p2pstore.settings.keys import TRANSPORTS
from p2pstore.swarm.events import Word
from p2pstore.swarm.gateway import Claim, Gateways

EVENT_SECONDS = 0.2
"""Between progress events."""

CLOSE_SECONDS = 5.0
"""How long a pull that ends waits for its feeds to end, and for its workers."""

Emit = Callable[[dict[str, Any]], None]
"""Takes ``progress`` and ``note`` events, on the event loop's thread."""


class PullWork:
    """Discovery and pull together, until every chunk is there or no hope is left."""

    def __init__(
        self,
        parts: Parts,
        resolved: ResolvedName,
        name: str,
        transport: str,
        emit: Emit,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` tells seconds and never goes back."""
        self.pull: Pull
        self._parts = parts
        self._resolved = resolved
        self._name = name
        self._transport = transport
        self._emit = emit
        self._unusable = ""
        self._clock = clock
        self._told_place = False
        self._counted: dict[str, int] = {}
        self._counted_peers: dict[str, int] = {}

    async def run(
        self,
        destination: Destination,
        on_chunks: Callable[[range], None],
        *,
        seeds: bool,
        repeats: Repeats | None = None,
        on_claim: Callable[[Claim], None] = lambda _: None,
    ) -> None:
        """``seeds``: what arrives is passed on, which ``on_chunks`` tells others. The rest is as in ``Pull``.

        When it raises, workers may still be leaving what they write, and ``Destination.abort`` says when they have.
        Raises ``NoLivePeer``, ``SourceSilent``, ``ChunkMismatch``, ``TransportUnavailable``, or what went wrong at the
        destination.
        """
        parts, resolved = self._parts, self._resolved
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        discovery: Discovery

        def note(text: str) -> None:
            loop.call_soon_threadsafe(self._emit, {"event": "note", "text": text})

        def ended() -> None:
            loop.call_soon_threadsafe(over.set)

        def say(word: Word) -> None:
            discovery.speaker.say(word)

        def dropped(source: str, banned: bool) -> None:  # noqa: FBT001 - the pull's callback
            discovery.dropped(source, banned)

        def wrong(source: str, chunk: int) -> None:
            parts.wrong_bytes.add(destination.manifest.digest, source, chunk)
            discovery.complaints.complain(source, chunk)

        at_first = await self._begin(
            destination,
            lambda: Pull(
                destination,
                destination.verified,
                open_channel=parts.engine.open,
                tuning=self._tuned(destination),
                limit=parts.download_limit,
                on_progress=ended,
                on_chunks=on_chunks,
                on_word=say,
                on_drop=dropped,
                on_wrong=wrong,
                note=note,
                repeats=repeats,
                gateways=Gateways(random.Random(), seeds=seeds) if parts.record.zone else None,  # noqa: S311 - no secret
                on_claim=on_claim,
            ),
        )
        discovery = Discovery(
            self.pull,
            destination.manifest,
            parts.record,
            client=parts.client,
            registry=parts.registry if resolved.watched else None,
            peers=[control for name, control in resolved.controls if name == control],
            transports=self._transports,
            seeds=seeds,
            note=lambda text: self._emit({"event": "note", "text": text}),
        )
        finding = asyncio.create_task(discovery.run(), name=f"discovery for {self._name}")
        try:
            await self._wait(destination.manifest.size - destination.left_out, at_first, discovery, over, finding)
        finally:
            self._count()
            self.pull.stop()  # before anything that a second cancel could cut short
            try:
                await discovery.complaints.heard(CLOSE_SECONDS)
            finally:
                finding.cancel()
            await asyncio.wait({finding}, timeout=CLOSE_SECONDS)
            if finding.done() and not finding.cancelled():
                finding.exception()  # ``_wait`` raised it, or something else that came first
        if self.pull.error is not None:
            raise self.pull.error
        await asyncio.wait({asyncio.wrap_future(self.pull.quiet)}, timeout=CLOSE_SECONDS)
        if not self.pull.quiet.done():
            raise StorageError(path="the destination", detail=f"a write has not ended for {CLOSE_SECONDS:g} s")

    def _tuned(self, destination: Destination) -> Tuning:
        """How many workers each source gets, and what they receive into."""
        size = destination.manifest.size - destination.left_out
        return tuned(Facts(processors(), destination.lands_in, size), self._parts.options.connections)

    async def _begin(self, destination: Destination, make: Callable[[], Pull]) -> int:
        """Begin the pull in a thread: of some hundred thousand chunks it takes a tenth of a second.

        Returns the bytes that the destination has before it.
        """
        made: list[Pull] = []

        def begin() -> int:
            made.append(make())
            return destination.manifest.bytes_of(destination.verified) - destination.left_out

        try:
            at_first = await to_its_end(asyncio.to_thread(begin))
        except BaseException:
            for pull in made:
                pull.stop()
            raise
        self.pull = made[0]
        return at_first

    async def _wait(
        self,
        total: int,
        at_first: int,
        discovery: Discovery,
        over: asyncio.Event,
        finding: asyncio.Task[None],
    ) -> None:
        most = MOST_CHUNKS * self.pull.manifest.chunk_size
        hope = Hope(self._clock(), least=self._least(), most=most)
        told = 0.0
        while not self.pull.finished:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(over.wait(), EVENT_SECONDS)
            over.clear()
            self._count()
            now = self._clock()
            if finding.done():
                finding.result()
            hope.look(now, self._sight(discovery))
            if hope.over:
                raise self._hopeless(discovery, hope)
            no_place = hope.wait is Wait.PLACE and self.pull.stuck
            if hope.tells() or (no_place and not self._told_place):
                self._told_place |= no_place
                self._emit({"event": "note", "text": self._waits_for(discovery, hope)})
            if now - told >= EVENT_SECONDS:
                told = now
                self._progress(at_first, total)
        if self.pull.error is None:  # whoever is told hears of the end, however soon it comes after the last event
            self._progress(at_first, total)

    def _progress(self, at_first: int, total: int) -> None:
        done = at_first + self.pull.bytes_pulled
        self._emit({"event": "progress", "done": done, "total": total, "peers": self.pull.active})

    def _count(self) -> None:
        """Have the bytes counted that came since the last time, by transport and by peer."""
        came = self.pull.bytes_by_transport
        for transport, count in came.items():
            self._parts.counts.pulled[transport] += count - self._counted.get(transport, 0)
        self._counted = came
        peers = self.pull.bytes_by_node
        for peer, count in peers.items():
            if count > (before := self._counted_peers.get(peer, 0)):
                self._parts.counts.came_from(peer, count - before)
        self._counted_peers = peers

    def _sight(self, discovery: Discovery) -> Sight:
        pull = self.pull
        return Sight(
            received=pull.received,
            verified=pull.bytes_pulled,
            stuck=pull.stuck,
            busy=discovery.waiting,
            queued=discovery.queued,
            writing=pull.storing,
            candidates=discovery.candidates,
            looked=discovery.looked,
            withdrawn=bool(discovery.withdrew),
        )

    def _least(self) -> int:
        """Bytes that count as progress: fewer where the user's own limit lets no more through."""
        rate = self._parts.download_limit.rate
        return min(LEAST_BYTES, max(1, int(rate * NO_BYTE_SECONDS / 2))) if rate else LEAST_BYTES

    def _waits_for(self, discovery: Discovery, hope: Hope) -> str:
        """For the user: what has not come, since when, from whom, and what is done next."""
        if hope.wait is Wait.PLACE:
            return f"whoever has {self._name!r} is serving as many receivers as it can; waiting for a place"
        nothing = f"nothing of {self._name!r} has come for {hope.quiet_seconds:.0f} s"
        left = f"for up to {hope.left:.0f} s more"
        if hope.wait is Wait.WRITE:
            return f"{nothing}: a write to the destination does not end; waiting {left}"
        fault = self._fault(discovery)
        if hope.wait is Wait.SOURCE:
            why = f"{fault}; " if fault else ""
            return f"{nothing}: {why}waiting {left} for a source to come back"
        return f"{nothing}: {self._reason(fault)}; trying again {left}"

    def _fault(self, discovery: Discovery) -> MooncakeError | None:
        """The latest fault of a source; why one withdrew the object, before what that led to on its connections."""
        fault = self.pull.last_fault
        if isinstance(fault, ChunkMismatch):
            return fault
        withdrew = list(discovery.withdrew.values())
        return withdrew[-1] if withdrew else fault or discovery.last_fault

    def _reason(self, fault: MooncakeError | None) -> str:
        """Why nothing comes of sources that are there, as far as is known."""
        asked = self.pull.asked
        if fault is not None or not asked:
            return str(fault) if fault else "nobody sends it"
        more = f" and {len(asked) - 1} more" if len(asked) > 1 else ""
        return f"{asked[0]}{more} {'send' if more else 'sends'} nothing"

    def _transports(self, peer: PeerAddress) -> tuple[str, ...]:
        """The transports to try for a peer, the best first."""
        usable = []
        for name in TRANSPORTS[self._transport]:
            why_not = self._parts.engine.transport(name).usable(peer)
            if why_not:
                self._unusable = self._unusable or why_not
            else:
                usable.append(name)
        return tuple(usable)

    def _hopeless(self, discovery: Discovery, hope: Hope) -> MooncakeError:
        """Why the pull ended."""
        fault = self._fault(discovery)
        if hope.wait is Wait.WRITE:
            return StorageError(path="the destination", detail=f"a write has not ended for {hope.seconds:.0f} s")
        if isinstance(fault, (ChunkMismatch, SecretRefused)):
            return fault
        if isinstance(fault, TransportUnavailable) and self._transport != "auto":
            return fault
        if self._unusable and self._transport != "auto" and fault is None:
            return TransportUnavailable(transport=self._transport, detail=self._unusable)
        if hope.wait is Wait.SOURCE and fault is None:
            return NoLivePeer(name=self._name, detail="nobody who is alive holds it")
        if hope.wait is Wait.PLACE:
            return NoLivePeer(name=self._name, detail="whoever holds it is serving as many receivers as it can")
        if hope.wait is Wait.SOURCE:
            return NoLivePeer(name=self._name, detail=str(fault))
        return SourceSilent(name=self._name, seconds=round(hope.seconds), detail=self._reason(fault))
