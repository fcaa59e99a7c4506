"""A get of an object's tensors into memory: headers first, then the chunks that have something of what is wanted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.cuda.device_memory import DeviceMemory
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent, release
from p2pstore.objects.steps import Steps
from p2pstore.pull.pieces_destination import PiecesDestination, take
from p2pstore.pull.pipeline import Pipeline
from p2pstore.pull.run import Emit
from p2pstore.pull.spread_destination import SpreadDestination
from p2pstore.pull.tensor_destination import TensorDestination
from p2pstore.pull.tensor_survey import Survey, WantedEnd, survey
from p2pstore.pull.tuning import PIECE_BYTES
from p2pstore.tensors.checkpoint import without_doubles
from p2pstore.tensors.frameworks import Framework
from p2pstore.tensors.patterns import NamePatterns
from p2pstore.tensors.plan import Piece, Plan, make_plan
from p2pstore.tensors.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TensorRequest:
    """Which tensors of an object are wanted, and made of what.

    ``ranks`` tells whose slices; ``within`` is a directory or a file of the object. The rest is as in ``GetRequest``.
    """

    name: str
    framework: Framework
    wanted: NamePatterns
    ranks: Ranks | None = None
    within: str = ""
    transport: str = "auto"
    peers: tuple[str, ...] = ()


class TensorEnd(WantedEnd[PiecesDestination]):
    """Memory of a framework's, with the tensors in it."""

    apart: ClassVar[bool] = False
    """Whether each tensor has memory of its own; else those of one file share it."""

    def __init__(self, request: TensorRequest) -> None:
        self.request = request
        self.plan = Plan((), (), ())
        self._areas: list[Any] = []
        self._survey: Survey | None = None
        self._had = 0

    async def is_over(self, get: Pipeline) -> bool:
        """See ``End.is_over``: finds out what is to be brought.

        Raises ``UsageError``, ``TensorNotFound``, ``BadTensors``, and as ``Pipeline.bring``.
        """
        request = self.request
        found = await survey(get, request.name, request.wanted, request.within, models=request.ranks is not None)
        self._survey = found
        get.steps.begin("planning")
        self.plan = await get.in_thread(self._planned, found)
        log.info("%d tensors of %s are wanted: %d bytes", len(self.plan.places), request.name, sum(self.plan.sizes))
        return False

    def _planned(self, found: Survey) -> Plan:
        request = self.request
        (plan,) = plans_of(found, request.wanted, request.framework, (request.ranks,), apart=self.apart)
        return plan

    def make(
        self,
        manifest: Manifest,
        cancelled: threading.Event,  # noqa: ARG002 - it is quick
        steps: Steps,  # noqa: ARG002 - likewise
    ) -> PiecesDestination:
        """See ``End.make``. Raises ``StorageError`` where there is no room, and ``GpuFailed``."""
        framework = self.request.framework
        self._areas = [framework.area(size) for size in self.plan.sizes]
        return destination_of(manifest, self.plan.pieces, self._areas, framework)

    def check(self, destination: PiecesDestination, cancelled: threading.Event) -> None:  # noqa: ARG002 - it is quick
        """See ``End.check``: takes what came along with the headers."""
        self._had = take(destination, self.take_survey().chunks, memoryview(bytearray(PIECE_BYTES)))

    async def begin(
        self,
        get: Pipeline,
        destination: PiecesDestination,  # noqa: ARG002 - as the base has it
    ) -> Callable[[range], None] | None:
        """See ``End.begin``: nothing is passed on. What came with the headers was counted when it came."""
        get.brought.reused -= self._had
        return None

    def take_survey(self) -> Survey:
        """What was found out; it has chunks, and is forgotten here."""
        survey, self._survey = self._survey, None
        assert survey is not None  # noqa: S101 - it was looked at
        return survey

    def tensors(self) -> dict[str, Any]:
        """What was brought, by name."""
        make = self.request.framework.tensor
        return {place.name: make(self._areas[place.area], place) for place in self.plan.places}


def plans_of(
    found: Survey,
    wanted: NamePatterns,
    framework: Framework,
    ranks: Sequence[Ranks | None],
    *,
    apart: bool = False,
) -> list[Plan]:
    """A plan of the wanted tensors for each of these ranks, None being who gets all of each.

    Raises ``UsageError``, ``TensorNotFound`` and ``BadTensors``.
    """
    taken = without_doubles(found.wanted(wanted), found.indexes, found.manifest.columns.paths)
    framework.check(tensor for _, tensor in taken)
    heads = {number: found.heads(number) for number in {number for number, _ in taken}} if any(ranks) else {}
    return [
        make_plan(
            [(n, tensor, rank.cut(tensor, heads[n]) if rank else None) for n, tensor in taken],
            found.manifest.file_offsets,
            apart=apart,
        )
        for rank in ranks
    ]


def destination_of(
    manifest: Manifest,
    pieces: Sequence[Piece],
    areas: Sequence[Any],
    framework: Framework,
    chunks: Iterable[int] | None = None,
) -> PiecesDestination:
    """The destination of pieces in a framework's memory. Raises ``GpuFailed``; nothing is then held."""
    views: list[Lent] = []
    try:
        views += map(framework.view, areas)
        if any(isinstance(view, DeviceMemory) for view in views):
            return SpreadDestination(manifest, [pieces], [[views]], chunks)
        return TensorDestination(manifest, pieces, [view for view in views if isinstance(view, memoryview)], chunks)
    except BaseException:
        release(views)
        raise


async def load_tensors(parts: Parts, request: TensorRequest, emit: Emit) -> dict[str, Any]:
    """Bring tensors into memory; by name. Raises as ``TensorEnd`` and a get."""
    end = TensorEnd(request)
    get = Pipeline(parts, end, request.name, transport=request.transport, peers=request.peers, emit=emit)
    await get.run()
    brought = get.brought
    log.info("%s: %d bytes came, %d were here, in %.3f s", request.name, brought.pulled, brought.reused, get.seconds)
    return end.tensors()
