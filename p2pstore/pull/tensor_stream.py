"""A get of an object's tensors one after the other, in the order in which they lie, through bounded memory.

Chunks come a window at a time; while what has come is being taken, the next window is on its way. A chunk is brought
once: what a window has of a tensor that ends in a later one stays in the tensor's memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.steps import Steps
from p2pstore.pull.pieces_destination import PiecesDestination, take
from p2pstore.pull.pipeline import Pipeline
from p2pstore.pull.run import Emit
from p2pstore.pull.tensor_get import TensorEnd, TensorRequest, destination_of
from p2pstore.pull.tensor_outlet import Item, Outlet
from p2pstore.pull.tensor_survey import Survey, WantedEnd
from p2pstore.pull.tuning import PIECE_BYTES
from p2pstore.tensors.frameworks import Framework
from p2pstore.tensors.plan import Piece
from p2pstore.tensors.windows import Window, windows

MEMORY = 1 << 30
"""Bytes of tensors that are under way or not yet given back, where nobody says how many."""

MIN_MEMORY = 1 << 20
"""Less would be one chunk at a time in any case."""

WINDOWS = 4
"""In that memory: more have less on the way at once, and fewer let what has come wait for longer."""

log = logging.getLogger(__name__)


class StreamEnd(TensorEnd):
    """Tensors that go to an outlet. All of it happens once it is known what there is, and nothing is left to bring."""

    apart = True

    def __init__(self, request: TensorRequest, outlet: Outlet) -> None:
        super().__init__(request)
        self._outlet = outlet

    async def is_over(self, get: Pipeline) -> bool:
        """See ``End.is_over``. Raises as ``TensorEnd.is_over``, and as ``Pipeline.bring``."""
        await super().is_over(get)
        survey, plan = self.take_survey(), self.plan
        framework, outlet = self.request.framework, self._outlet
        areas: dict[int, Any] = {}  # of the tensors that are begun and not yet handed out
        pieces = {piece.area: piece for piece in plan.pieces}
        for window in await get.in_thread(lambda: list(windows(get.manifest, plan, outlet.most // WINDOWS))):
            await outlet.room(sum(plan.places[number].length for number in window.begun))
            for number in window.begun:
                areas[number] = framework.area(plan.places[number].length)
            if window.chunks:
                await get.bring(_WindowEnd(window, areas, pieces, framework, survey))
            for number in window.whole:
                place = plan.places[number]
                outlet.put(Item(place.name, framework.tensor(areas.pop(number), place), place.length))
        return True


class _WindowEnd(WantedEnd[PiecesDestination]):
    """The chunks of one window."""

    def __init__(
        self,
        window: Window,
        areas: dict[int, Any],
        pieces: dict[int, Piece],
        framework: Framework,
        survey: Survey,
    ) -> None:
        self._window = window
        self._areas = {number: area for number, area in areas.items() if number in pieces}
        self._pieces = pieces
        self._framework = framework
        self._survey = survey
        self._had = 0

    def make(
        self,
        manifest: Manifest,
        cancelled: threading.Event,  # noqa: ARG002 - it is quick
        steps: Steps,  # noqa: ARG002 - likewise
    ) -> PiecesDestination:
        """See ``End.make``."""
        numbers = sorted(self._areas)
        pieces = [self._pieces[number]._replace(area=area) for area, number in enumerate(numbers)]
        return destination_of(
            manifest, pieces, [self._areas[number] for number in numbers], self._framework, self._window.chunks
        )

    def check(self, destination: PiecesDestination, cancelled: threading.Event) -> None:  # noqa: ARG002 - it is quick
        """See ``End.check``: takes what came along with the headers, and forgets it."""
        came = self._survey.chunks
        mine = {number: came.pop(number) for number in self._window.chunks if number in came}
        self._had = take(destination, mine, memoryview(bytearray(PIECE_BYTES)))

    async def begin(
        self,
        get: Pipeline,
        destination: PiecesDestination,  # noqa: ARG002 - as the base has it
    ) -> Callable[[range], None] | None:
        """See ``End.begin``: as of ``TensorEnd``."""
        get.brought.reused -= self._had
        return None


async def stream_tensors(parts: Parts, request: TensorRequest, outlet: Outlet, emit: Emit) -> None:
    """Bring tensors to an outlet. Raises as ``StreamEnd`` and a get."""
    get = Pipeline(
        parts, StreamEnd(request, outlet), request.name, transport=request.transport, peers=request.peers, emit=emit
    )
    await get.run()
    brought = get.brought
    log.info("%s: %d bytes came, %d were here, in %.3f s", request.name, brought.pulled, brought.reused, get.seconds)
