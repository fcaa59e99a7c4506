"""The way of every get, from a name to a destination that holds the object; its two ends are files and memory.

Steps, each of which may end it: find what the name stands for, get the manifest, let the end look at what is there,
check what an interrupted get left, copy what this node has elsewhere, pull the rest, and finish the destination.

A cancel is heard at every step, and raised when no thread of the get writes any more: what the caller then does with
the destination, nobody disturbs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from engine.memory.file_spans import FileSpan
from p2pstore.cluster.manifests import first_that_answers
from p2pstore.errors import (
    HolderGone,
    MooncakeError,
    NoLivePeer,
    ObjectNotFound,
    PeerBusy,
    PeerStalled,
    PeerUnreachable,
    RemoteError,
    TransportUnavailable,
)
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.reference import parse_reference
from p2pstore.objects.repeats import Repeats, repeats_of
from p2pstore.objects.steps import Steps, reported
from p2pstore.objects.waiting import in_thread, telling, to_its_end
from p2pstore.pull.destination import ABORT_SECONDS, Destination
from p2pstore.pull.holders import RETRIES
from p2pstore.pull.hope import NO_SOURCE_SECONDS, QUIET_SECONDS, TELL_SECONDS
from p2pstore.pull.old_chunks import Places
from p2pstore.pull.own_chunks import copy_repeats, fill_zeros
from p2pstore.pull.resolve import ResolvedName, resolve
from p2pstore.pull.reuse import copy_local
from p2pstore.pull.run import Emit, PullWork
from p2pstore.swarm.gateway import Claim

log = logging.getLogger(__name__)

ASKING = "asking"
"""The step in which a get finds what its name stands for, and of which chunks that is made."""

MAX_NAMED = 4
"""Holders that a note names."""

T = TypeVar("T")
D = TypeVar("D", bound=Destination)
E = TypeVar("E", bound=Destination)


@dataclass
class Brought:
    """What came so far, in bytes, over which transports, and what each node sent; only what was verified counts."""

    pulled: int = 0
    reused: int = 0
    transport: str = ""
    peers: dict[str, int] = field(default_factory=dict)


class Goal(ABC):
    """What a get is for."""

    @abstractmethod
    async def reach(self, get: Pipeline) -> None:
        """Bring what is wanted, by ``Pipeline.bring``: the name is resolved, and the manifest known."""


class End(Goal, Generic[D]):
    """What is particular to where a get ends. Its methods run on the event loop but for ``make`` and ``check``."""

    lent: ClassVar[bool] = False
    """Whether the destination is the caller's: a get then returns only when nothing can write to it any more."""

    async def reach(self, get: Pipeline) -> None:
        """See ``Goal.reach``. Raises as ``is_over`` and ``Pipeline.bring``."""
        if not await self.is_over(get):
            await get.bring(self)

    async def is_over(self, get: Pipeline) -> bool:  # noqa: ARG002 - most ends look at nothing
        """Look at what is there, with the name resolved and the manifest known; whether nothing is to be brought."""
        return False

    @abstractmethod
    def make(self, manifest: Manifest, cancelled: threading.Event, steps: Steps) -> D:
        """The destination, which tells ``steps`` what it does.

        Runs in a thread; may raise ``Interrupted`` once ``cancelled`` is set.
        """

    def check(self, destination: D, cancelled: threading.Event) -> None:
        """Find out what of the object the new destination has already. Runs in a thread; raises ``Interrupted``."""

    def repeats(self, manifest: Manifest) -> Repeats:
        """What of the object need not be moved. Runs in a thread."""
        return repeats_of(manifest)

    async def old_chunks(self, get: Pipeline) -> Places:  # noqa: ARG002 - most replace nothing
        """Chunks of the object in what is to be replaced."""
        return {}

    async def begin(self, get: Pipeline, destination: D) -> Callable[[range], None] | None:  # noqa: ARG002
        """All that is here has been used. Returns who is told of chunks that are pulled, to pass them on."""
        return None

    def claims(self, claim: Claim) -> None:
        """Tell those who get what is passed on who is a gateway of this node's zone. Any thread."""

    def give_up(self, get: Pipeline) -> None:
        """The get has failed or was cancelled, after ``make``; the destination was aborted, if it was not finished."""

    async def hold(self, get: Pipeline, spans: Sequence[FileSpan]) -> None:
        """The object is whole, in these files."""


class Pipeline:
    """One get, to be run once."""

    resolved: ResolvedName
    manifest: Manifest

    def __init__(
        self,
        parts: Parts,
        goal: Goal,
        name: str,
        *,
        transport: str,
        peers: tuple[str, ...],
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``emit`` takes the events that a user may want to see meanwhile; ``clock`` tells seconds for its bounds."""
        self.parts = parts
        self.brought = Brought()
        self.cancelled = threading.Event()
        self._goal: Goal | None = goal
        self._name = name
        self._transport = transport
        self._peers = peers
        self._emit = emit
        self._clock = clock
        self._began = time.monotonic()
        self.steps = Steps()
        self._check: Callable[[], None]

    @property
    def seconds(self) -> float:
        """Since it began."""
        return round(time.monotonic() - self._began, 6)

    async def run(self) -> None:
        """Do it, and say what is being done. Cancelling the task stops it cleanly.

        Raises ``BadName``, ``BadReference``, as ``resolve``, ``NoLivePeer``, ``ChunkMismatch``,
        ``TransportUnavailable``, and what the end raises.
        """
        parse_reference(self._name)
        try:
            async with reported(self.steps, self._emit) as self._check:
                await self._run()
        except RemoteError as error:
            error.fields.setdefault("name", self._name)  # whoever talks to peers does not know what for
            raise

    async def _run(self) -> None:
        self.steps.begin(ASKING)
        self.resolved = await self._resolve()
        self.manifest = await self._fetch_manifest()
        # Pulls know this, and this knows them: what the goal holds would stay until a collector of cycles comes by.
        goal, self._goal = self._goal, None
        assert goal is not None, "it is run once"  # noqa: S101
        await goal.reach(self)

    async def bring(self, end: End[E]) -> None:
        """Bring the object to an end, or what of it that wants; once its manifest is known, and as often as need be."""
        if self._transport != "auto":
            why_not = await self.in_thread(self.parts.engine.transport(self._transport).missing)
            if why_not:  # no peer is at fault, and nothing is begun
                raise TransportUnavailable(transport=self._transport, detail=f"on this host: {why_not}")
        destination = await self._make(end)
        before = self.brought.reused
        try:
            await self._fill(destination, end)
            self.steps.begin("finishing")
            finishing = self.in_thread(destination.finish)
            spans = await telling(finishing, self._tell_finishing, first=QUIET_SECONDS, again=TELL_SECONDS)
            self.steps.begin("publishing")
            await end.hold(self, spans)
            self.parts.counts.reused += self.brought.reused - before
        except BaseException:
            self.cancelled.set()
            try:
                await to_its_end(self._abort(destination, end))
            finally:
                end.give_up(self)
            raise

    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work`` in a thread. A cancel sets ``cancelled``, and is raised once the thread has left ``work``."""
        return await in_thread(self.cancelled, work, *args)

    def note(self, text: str) -> None:
        """Tell the user."""
        self._emit({"event": "note", "text": text})

    async def _resolve(self) -> ResolvedName:
        """What the name stands for. Raises as ``resolve``."""
        parts = self.parts
        asked = ", ".join((*self._peers, parts.registry.store.url))
        return await self._telling(
            resolve(parts.registry, parts.client, parse_reference(self._name), self._peers), asked
        )

    async def _telling(self, work: Awaitable[T], who: str) -> T:
        """What comes of ``work``; the user hears whose answer it waits for."""

        def tell(seconds: float) -> None:
            self.note(f"waiting for an answer about {self._name!r} for {seconds:.0f} s: {who}")

        return await telling(work, tell, first=QUIET_SECONDS, again=TELL_SECONDS)

    async def _fetch_manifest(self) -> Manifest:
        """The manifest, from this node or from whoever has it.

        Holders that do not answer are asked again for ``NO_SOURCE_SECONDS``: they may be starting again. Raises the
        last one's fault, or ``NoLivePeer``.
        """
        known = self.parts.holdings.manifest(self.resolved.record.manifest)
        if known is not None:
            return known
        until = self._clock() + NO_SOURCE_SECONDS
        failures = 0
        fault: MooncakeError = NoLivePeer(name=self._name, detail="nobody who is alive holds it")
        while self.resolved.controls:
            controls = self.resolved.controls
            asked = first_that_answers(self.parts.client, controls, self.resolved.record.manifest, self.note)
            try:
                return await self._telling(asked, ", ".join(control for _, control in controls[:MAX_NAMED]))
            except (PeerUnreachable, PeerStalled, PeerBusy) as error:
                fault = error
            left = until - self._clock()
            if left <= 0:
                break
            if not failures:
                self.note(f"{fault}; trying again for up to {left:.0f} s more")
            failures += 1
            await asyncio.sleep(min(left, RETRIES.after(failures)))
            with contextlib.suppress(ObjectNotFound, HolderGone):  # it was there: its holder may come back
                self.resolved = await self._resolve()
        raise fault

    def _tell_finishing(self, seconds: float) -> None:
        self.note(f"all of {self._name!r} has come; {self.steps.name} since {seconds:.0f} s")

    async def _make(self, end: End[E]) -> E:
        made: list[E] = []
        try:
            await self.in_thread(lambda: made.append(end.make(self.manifest, self.cancelled, self.steps)))
        except asyncio.CancelledError:
            for destination in made:
                destination.abort(0)  # nobody has begun to write
            raise
        return made[0]

    async def _fill(self, destination: E, end: End[E]) -> None:
        """Bring every chunk: those that are there, those that this node has elsewhere, and those that others have."""
        manifest, verified = self.manifest, destination.verified
        await self.in_thread(end.check, destination, self.cancelled)
        repeats = await self.in_thread(end.repeats, manifest)
        if repeats.zeros:
            self.steps.begin("filling with zeros", sum(manifest.lengths[n] for n in repeats.zeros), "B")
            await self.in_thread(fill_zeros, destination, repeats, self.cancelled, self.steps.add)
        old = await end.old_chunks(self)
        self.steps.begin("copying what is here", manifest.size - destination.left_out, "B")
        await self.in_thread(copy_local, self.parts.holdings, destination, self.cancelled, self.steps.add, old)
        await self.in_thread(copy_repeats, destination, repeats, self.cancelled, self.steps.add)
        self._check()
        self.steps.begin("planning")
        self.brought.reused += await self.in_thread(manifest.bytes_of, verified) - destination.left_out
        on_chunks = await end.begin(self, destination)
        if verified.full:
            return
        listen = on_chunks or _nobody_listens
        await self._pull(destination, listen, repeats, seeds=on_chunks is not None, on_claim=end.claims)
        if repeats.firsts:
            self.steps.begin("copying what repeats", sum(manifest.lengths[n] for n in verified.missing()), "B")
            self.brought.reused += await self.in_thread(
                copy_repeats, destination, repeats, self.cancelled, self.steps.add, listen
            )
        if verified.count < manifest.chunks:  # what was to be copied is no longer what it was
            await self._pull(destination, listen, None, seeds=on_chunks is not None, on_claim=end.claims)

    async def _pull(
        self,
        destination: Destination,
        on_chunks: Callable[[range], None],
        repeats: Repeats | None,
        *,
        seeds: bool,
        on_claim: Callable[[Claim], None],
    ) -> None:
        """Bring what is missing from others, but for what ``repeats``."""
        work = PullWork(self.parts, self.resolved, self._name, self._transport, self._tell, clock=self._clock)
        await work.run(destination, on_chunks, seeds=seeds, repeats=repeats, on_claim=on_claim)
        brought, pull = self.brought, work.pull
        brought.pulled += pull.bytes_pulled
        for node, count in pull.bytes_by_node.items():
            brought.peers[node] = brought.peers.get(node, 0) + count
        brought.transport = ",".join(sorted({*filter(None, brought.transport.split(",")), *pull.bytes_by_transport}))

    async def _abort(self, destination: E, end: End[E]) -> None:
        """End the destination. One that was lent is waited for until the last write has ended."""
        while not await asyncio.to_thread(destination.abort):
            log.warning("a write of %s has not ended for %g s", self._name, ABORT_SECONDS)
            if not end.lent:
                return  # whoever still writes keeps it locked

    def _tell(self, event: dict[str, Any]) -> None:
        """What the pull says: it counts better than a step."""
        if event["event"] == "progress":
            self.steps.end()
        self._emit(event)


def _nobody_listens(run: range) -> None:
    """What a get that passes nothing on does with news of verified chunks."""
