"""A get of an object's tensors into memory of a GPU, that processes of a host share: each byte comes once for all.

Each finds out what it wants, and they meet. From what they say all of them come to the same: who brings which chunk for
all that want something of it. Each then brings its own, passes that on, and copies what the others pass on. What one
that has gone was to bring, each of the others brings for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from engine.cuda.device_memory import DeviceMemory
from engine.errors import MooncakeError
from p2pstore.errors import Interrupted, StorageError, UsageError
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent, release
from p2pstore.objects.steps import Steps
from p2pstore.objects.waiting import to_its_end
from p2pstore.pull.destination import Destination
from p2pstore.pull.pieces_destination import take
from p2pstore.pull.pipeline import Goal, Pipeline
from p2pstore.pull.run import Emit
from p2pstore.pull.shared_destination import SharedDestination
from p2pstore.pull.tensor_get import TensorRequest, destination_of, plans_of
from p2pstore.pull.tensor_survey import Survey, WantedEnd, survey
from p2pstore.pull.tuning import PIECE_BYTES
from p2pstore.sharing import meeting
from p2pstore.sharing.arrivals import Arrivals
from p2pstore.sharing.direct import Direct, Exports
from p2pstore.sharing.duties import Duties
from p2pstore.sharing.group import Group
from p2pstore.sharing.launch import Launch
from p2pstore.sharing.ledger import Ledger
from p2pstore.sharing.place import meeting_directory
from p2pstore.sharing.ring import Ring, buffers_for
from p2pstore.tensors.plan import Plan, left_out
from p2pstore.tensors.ranks import Ranks
from p2pstore.tensors.spread import SpreadMap

log = logging.getLogger(__name__)


class Share:
    """What all want, as one of them sees it."""

    def __init__(self, manifest: Manifest, plans: Sequence[Plan], sets: Sequence[int], *, overlapping: bool) -> None:
        """``sets`` is, by process, the number of its plan. ``overlapping``: slices of different plans may be."""
        self.spread = SpreadMap([plan.pieces for plan in plans])
        self.sets = sets
        wanted = [set(left_out(manifest, plan.pieces).missing()) for plan in plans]
        alone = self._too_large(manifest, set().union(*wanted)) if overlapping and len(plans) > 1 else set()
        self.duties = Duties([wanted[number] for number in sets], manifest.lengths, alone)
        said = [[plan.sizes, plan.pieces] for plan in plans], list(sets), sorted(alone)
        self.view = hashlib.sha256(json.dumps(said).encode()).digest()

    def _too_large(self, manifest: Manifest, chunks: Collection[int]) -> set[int]:
        """Chunks of which all together want more than a buffer holds."""
        found = set()
        for number in chunks:
            chunk = manifest.chunk(number)
            if self.spread.layout(chunk.offset, chunk.offset + chunk.length).size > manifest.chunk_size:
                found.add(number)
        return found


class SharedGet(Goal):
    """Tensors in this process's memory."""

    def __init__(self, request: TensorRequest, launch: Launch) -> None:
        self.request = request
        self.launch = launch
        self.plan = Plan((), (), ())
        self._areas: list[Any] = []
        self._survey: Survey | None = None

    async def reach(self, get: Pipeline) -> None:
        """See ``Goal.reach``. Raises as ``TensorEnd``, and ``UsageError`` for a rank that is there twice."""
        request = self.request
        found = await survey(get, request.name, request.wanted, request.within, models=True)
        self._survey = found
        get.steps.begin("planning")
        (self.plan,) = await get.in_thread(plans_of, found, request.wanted, request.framework, (request.ranks,))
        log.info("%d tensors of %s are wanted: %d bytes", len(self.plan.places), request.name, sum(self.plan.sizes))
        views: list[Lent] = []
        try:
            await get.in_thread(self._make, views)
            left = await self._shared(get, views)
        finally:
            release(views)
        if left:
            await get.bring(
                _Part(
                    self, partial(destination_of, get.manifest, self.plan.pieces, self._areas, request.framework, left)
                )
            )

    def _make(self, views: list[Lent]) -> None:
        framework = self.request.framework
        self._areas = [framework.area(size) for size in self.plan.sizes]
        views.extend(map(framework.view, self._areas))

    async def _shared(self, get: Pipeline, views: Sequence[Lent]) -> set[int]:
        """Bring together with the others what that can be; the chunks that are left."""
        manifest = get.manifest
        wanted = set((await get.in_thread(left_out, manifest, self.plan.pieces)).missing())
        memory = next((view for view in views if isinstance(view, DeviceMemory)), None)
        if memory is None or self.launch.size == 1:
            return wanted
        get.steps.begin("waiting for the other ranks of this host")
        exports = await get.in_thread(Exports, memory.cuda, memory.device, views)
        try:
            return await self._together(get, views, wanted, memory, exports)
        finally:
            exports.close()  # all who had it open have said that they have closed it, or have gone

    async def _together(
        self, get: Pipeline, views: Sequence[Lent], wanted: set[int], memory: DeviceMemory, exports: Exports
    ) -> set[int]:
        manifest = get.manifest
        met = await get.in_thread(self._met, get, exports.said)
        if met is None:
            return wanted
        stages = _Stages(met, self.launch.size)
        group: Group
        try:
            share = await get.in_thread(self._agreed, met)
            group, ring = await get.in_thread(stages.begin, share, manifest, views, memory)
        except MooncakeError as error:
            await asyncio.to_thread(stages.close)
            log.warning("this rank gets %s alone: %s", self.request.name, error)
            return wanted
        except BaseException:
            await to_its_end(asyncio.to_thread(stages.close))
            raise
        try:
            mine = [chunk for chunk in share.duties.of(met.me) if chunk not in share.duties.alone]
            log.info("%s: this rank brings %d chunks for %d ranks", self.request.name, len(mine), len(met.members))
            if mine:
                await get.bring(
                    _Part(
                        self,
                        partial(
                            SharedDestination,
                            manifest,
                            mine,
                            {chunk for chunk in mine if share.duties.others(chunk)},
                            share.spread,
                            share.sets[met.me],
                            views,
                            memory.cuda,
                            ring,
                            group,
                        ),
                    )
                )
            get.steps.begin("waiting for what other ranks of this host bring")
            await get.in_thread(group.wait, _checker(get.cancelled))
            return group.lost | (share.duties.alone & wanted)
        finally:
            await to_its_end(asyncio.to_thread(stages.close))
            stages.tell(self.request.name)

    def _met(self, get: Pipeline, exported: dict[str, Any] | None) -> meeting.Met | None:
        """Who came; None where nobody else did. Raises ``Interrupted``, and ``UsageError``."""
        launch, ranks = self.launch, self.request.ranks
        cut = [ranks.rank, ranks.world] if ranks is not None else None
        hello = {"rank": launch.rank, "slice": cut, "exported": exported}
        name = launch.meeting(get.resolved.record.manifest, self.request.within)
        share = buffers_for(get.manifest.chunk_size, launch.size) * get.manifest.chunk_size
        try:
            place = meeting_directory(os.environ) / name
            met = meeting.meet(place, hello, launch.size, share, _checker(get.cancelled))
        except (OSError, StorageError) as error:
            log.warning("ranks of this host cannot meet, and this one gets %s alone: %s", self.request.name, error)
            return None
        here = {each["rank"] for each in met.members}
        missing = ", ".join(str(rank) for rank in range(launch.size) if rank not in here)
        if missing:
            log.warning(
                "rank %s of this host did not come for %s within %g s: it is done without",
                missing, self.request.name, meeting.MEET_SECONDS,
            )  # fmt: skip
        if len(met.members) == 1:
            met.close()
            return None
        return met

    def _agreed(self, met: meeting.Met) -> Share:
        """What all want. Raises ``UsageError`` for slices that cannot be."""
        assert self._survey is not None  # noqa: S101 - it was looked at
        rule = self.request.ranks.rule if self.request.ranks is not None else None
        slices = [(int(each["slice"][0]), int(each["slice"][1])) if each["slice"] else None for each in met.members]
        different = list(dict.fromkeys(slices))
        ranks = [Ranks(*each, rule) if each is not None else None for each in different]
        plans = plans_of(self._survey, self.request.wanted, self.request.framework, ranks)
        sets = [different.index(each) for each in slices]
        overlapping = rule is not None or len({each[1] if each is not None else 1 for each in different}) > 1
        return Share(self._survey.manifest, plans, sets, overlapping=overlapping)

    def take_survey(self, destination: Destination) -> int:
        """Give a destination what came along with the headers; how many bytes."""
        assert self._survey is not None  # noqa: S101 - it was looked at
        return take(destination, self._survey.chunks, memoryview(bytearray(PIECE_BYTES)))

    def tensors(self) -> dict[str, Any]:
        """What was brought, by name."""
        make = self.request.framework.tensor
        return {place.name: make(self._areas[place.area], place) for place in self.plan.places}


class _Stages:
    """What is made for a group, step by step, and given back."""

    def __init__(self, met: meeting.Met, size: int) -> None:
        """``size`` is how many might have met."""
        self._met = met
        self._size = size
        self._arrivals: Arrivals | None = None
        self._ring: Ring | None = None
        self._group: Group | None = None

    def begin(
        self, share: Share, manifest: Manifest, views: Sequence[Lent], memory: DeviceMemory
    ) -> tuple[Group, Ring]:
        """Begin to share. Raises ``GpuFailed`` and ``UsageError``; it is to be closed all the same."""
        met, cuda, device = self._met, memory.cuda, memory.device
        try:
            self._ring = ring = Ring(met.memory, met.me, self._size, manifest.chunk_size, cuda, device)
        except OSError as error:
            detail = f"what ranks of this host share cannot be mapped: {error.strerror or error}"
            raise UsageError(detail=detail) from None
        ledger = Ledger(share.duties, met.me)
        direct = Direct(cuda, device)
        self._arrivals = Arrivals(cuda, device, manifest, share.spread, share.sets, met.me, views, ring, direct)
        for process, owed in ledger.owed.items():
            if owed:
                direct.open(process, met.members[process].get("exported"))
        self._group = group = Group(met, ledger, share.view, ring, self._arrivals, cuda, device)
        group.start()
        return group, ring

    def tell(self, name: str) -> None:
        """Note which way it came."""
        if self._arrivals is not None:
            told = self._arrivals.by_gpus, self._arrivals.by_ring
            log.info("%s: %d bytes came from other ranks' GPUs, %d by way of the host's memory", name, *told)

    def close(self) -> None:
        """Give all of it back."""
        if self._group is not None:
            self._group.close()
            return
        if self._arrivals is not None:
            self._arrivals.close()
        if self._ring is not None:
            self._ring.close()
        self._met.close()


D = TypeVar("D", bound=Destination)


class _Part(WantedEnd[D]):
    """Some chunks of what this process wants."""

    def __init__(self, whole: SharedGet, make: Callable[[], D]) -> None:
        self._whole = whole
        self._make = make
        self._had = 0

    def make(
        self,
        manifest: Manifest,  # noqa: ARG002 - as the base has it
        cancelled: threading.Event,  # noqa: ARG002 - it is quick
        steps: Steps,  # noqa: ARG002 - likewise
    ) -> D:
        """See ``End.make``."""
        return self._make()

    def check(self, destination: D, cancelled: threading.Event) -> None:  # noqa: ARG002 - it is quick
        """See ``End.check``: takes what came along with the headers."""
        self._had = self._whole.take_survey(destination)

    async def begin(self, get: Pipeline, destination: D) -> Callable[[range], None] | None:  # noqa: ARG002 - as the base
        """See ``End.begin``: what came with the headers was counted when it came."""
        get.brought.reused -= self._had
        return None


def _checker(cancelled: threading.Event) -> Callable[[], None]:
    """What raises ``Interrupted`` once a get is not wanted any more."""

    def check() -> None:
        if cancelled.is_set():
            raise Interrupted(detail="the get was given up")

    return check


async def share_tensors(parts: Parts, request: TensorRequest, launch: Launch, emit: Emit) -> dict[str, Any]:
    """Bring tensors into memory; by name. Raises as ``SharedGet`` and a get."""
    goal = SharedGet(request, launch)
    get = Pipeline(parts, goal, request.name, transport=request.transport, peers=request.peers, emit=emit)
    await get.run()
    brought = get.brought
    log.info("%s: %d bytes came, %d were here, in %.3f s", request.name, brought.pulled, brought.reused, get.seconds)
    return goal.tensors()
