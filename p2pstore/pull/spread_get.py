"""A get of an object's tensors into the memory of several GPUs of this process, of which each chunk comes once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent, release
from p2pstore.objects.repeats import Repeats
from p2pstore.objects.steps import Steps
from p2pstore.pull.pieces_destination import take
from p2pstore.pull.pipeline import End, Pipeline
from p2pstore.pull.run import Emit
from p2pstore.pull.spread_destination import SpreadDestination
from p2pstore.pull.tensor_get import plans_of
from p2pstore.pull.tensor_survey import Survey, survey
from p2pstore.pull.tuning import PIECE_BYTES
from p2pstore.tensors.frameworks import Framework
from p2pstore.tensors.patterns import NamePatterns
from p2pstore.tensors.plan import Plan
from p2pstore.tensors.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpreadRequest:
    """Which tensors of an object are wanted, and where: ``frameworks`` are those of the GPUs, in order.

    ``ranks`` are as many as these, the slices of each; or one, of which all get the same. The rest is as in
    ``TensorRequest``.
    """

    name: str
    frameworks: tuple[Framework, ...]
    wanted: NamePatterns
    ranks: tuple[Ranks | None, ...]
    within: str = ""
    transport: str = "auto"
    peers: tuple[str, ...] = ()

    @property
    def shared(self) -> list[tuple[Framework, ...]]:
        """Who gets what each of ``ranks`` does."""
        return [self.frameworks] if len(self.ranks) == 1 else [(framework,) for framework in self.frameworks]


class SpreadEnd(End[SpreadDestination]):
    """Memory of several GPUs, with the tensors in it."""

    def __init__(self, request: SpreadRequest) -> None:
        self.request = request
        self.plans: list[Plan] = []
        self._areas: list[list[list[Any]]] = []  # by rank, by GPU
        self._survey: Survey | None = None
        self._had = 0

    async def is_over(self, get: Pipeline) -> bool:
        """See ``End.is_over``: as of ``TensorEnd``."""
        request = self.request
        found = await survey(get, request.name, request.wanted, request.within, models=any(request.ranks))
        self._survey = found
        get.steps.begin("planning")
        self.plans = await get.in_thread(plans_of, found, request.wanted, request.frameworks[0], request.ranks)
        sizes = [sum(plan.sizes) for plan in self.plans]
        log.info("%d tensors of %s are wanted: %s bytes", len(self.plans[0].places), request.name, sizes)
        return False

    def repeats(self, manifest: Manifest) -> Repeats:  # noqa: ARG002 - as the base has it
        """See ``End.repeats``: none, as of ``WantedEnd``."""
        return Repeats()

    def make(
        self,
        manifest: Manifest,
        cancelled: threading.Event,  # noqa: ARG002 - it is quick
        steps: Steps,  # noqa: ARG002 - likewise
    ) -> SpreadDestination:
        """See ``End.make``. Raises ``StorageError`` where there is no room, and ``GpuFailed``."""
        self._areas = [
            [[framework.area(size) for size in plan.sizes] for framework in frameworks]
            for plan, frameworks in zip(self.plans, self.request.shared, strict=True)
        ]
        lent: list[Lent] = []

        def views(framework: Framework, areas: Sequence[Any]) -> list[Lent]:
            found = []
            for area in areas:
                found.append(framework.view(area))
                lent.append(found[-1])
            return found

        try:
            places = [
                [views(framework, areas) for framework, areas in zip(frameworks, several, strict=True)]
                for frameworks, several in zip(self.request.shared, self._areas, strict=True)
            ]
            return SpreadDestination(manifest, [plan.pieces for plan in self.plans], places)
        except BaseException:
            release(lent)
            raise

    def check(self, destination: SpreadDestination, cancelled: threading.Event) -> None:  # noqa: ARG002 - it is quick
        """See ``End.check``: takes what came along with the headers."""
        survey, self._survey = self._survey, None
        assert survey is not None  # noqa: S101 - it was looked at
        self._had = take(destination, survey.chunks, memoryview(bytearray(PIECE_BYTES)))

    async def begin(
        self,
        get: Pipeline,
        destination: SpreadDestination,  # noqa: ARG002 - as the base has it
    ) -> Callable[[range], None] | None:
        """See ``End.begin``: nothing is passed on. What came with the headers was counted when it came."""
        get.brought.reused -= self._had
        return None

    def tensors(self) -> list[dict[str, Any]]:
        """What was brought, by name, for each GPU in the order of the request."""
        return [
            {place.name: framework.tensor(areas[place.area], place) for place in plan.places}
            for plan, frameworks, several in zip(self.plans, self.request.shared, self._areas, strict=True)
            for framework, areas in zip(frameworks, several, strict=True)
        ]


async def spread_tensors(parts: Parts, request: SpreadRequest, emit: Emit) -> list[dict[str, Any]]:
    """Bring tensors into memory of several GPUs. Raises as ``SpreadEnd`` and a get."""
    end = SpreadEnd(request)
    get = Pipeline(parts, end, request.name, transport=request.transport, peers=request.peers, emit=emit)
    await get.run()
    brought = get.brought
    log.info("%s: %d bytes came, %d were here, in %.3f s", request.name, brought.pulled, brought.reused, get.seconds)
    return end.tensors()
