"""A get of an object's tensors into safetensors files of their own: whole and verified at their destination."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from p2pstore.errors import TensorNotFound
from p2pstore.holding.parts import Parts
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.get import GetRequest, GetResult
from p2pstore.pull.part_end import PartEnd, get_part
from p2pstore.pull.pieces_destination import take
from p2pstore.pull.pipeline import Pipeline
from p2pstore.pull.run import Emit
from p2pstore.pull.tensor_file_destination import TensorFileDestination
from p2pstore.pull.tensor_survey import Survey, survey
from p2pstore.pull.tuning import PIECE_BYTES
from p2pstore.tensors.files import TensorFiles, tensor_files
from p2pstore.tensors.header import HeaderFault
from p2pstore.tensors.patterns import NamePatterns


class TensorFilesEnd(PartEnd):
    """Safetensors files at a path: one for each of the object's that has any of the tensors."""

    def __init__(self, parts: Parts, request: GetRequest) -> None:
        """Raises ``UsageError`` for patterns that are none."""
        super().__init__(parts, request)
        self._patterns = NamePatterns(request.tensors)
        self._survey: Survey | None = None
        self._had = 0

    async def choose(self, get: Pipeline) -> TensorFiles:
        """See ``PartEnd.choose``: headers are read, even where nothing is to be written.

        Raises ``TensorNotFound`` or ``BadTensors``.
        """
        found = await survey(get, self._request.name, self._patterns, "", models=False)
        get.steps.begin("planning")
        wanted = await get.in_thread(self._made, found)
        self._survey = found
        return wanted

    def _made(self, found: Survey) -> TensorFiles:
        wanted = found.wanted(self._patterns)
        if not wanted:
            raise TensorNotFound(name=found.name, patterns=", ".join(map(repr, self._patterns.patterns)), found="none")
        try:
            return tensor_files(found.manifest, wanted, found.headers, found.indexes)
        except HeaderFault as fault:
            raise found.fault("", fault) from None

    def check(self, destination: FileDestination, cancelled: threading.Event) -> None:
        """See ``End.check``: what an interrupted get left, and what came along with the headers."""
        assert isinstance(destination, TensorFileDestination)  # noqa: S101 - the base made it
        assert self._survey is not None  # noqa: S101 - it was looked at
        destination.recheck(cancelled)
        self._had = take(destination, self._survey.chunks, memoryview(bytearray(PIECE_BYTES)))
        self._survey = None

    async def begin(self, get: Pipeline, destination: FileDestination) -> Callable[[range], None] | None:
        """See ``End.begin``: what came with the headers was counted when it came."""
        get.brought.reused -= self._had
        return await super().begin(get, destination)


async def get_tensor_files(parts: Parts, request: GetRequest, emit: Emit) -> GetResult:
    """Bring the tensors of a request to a path. Raises as ``TensorFilesEnd`` and ``get_files``."""
    end = TensorFilesEnd(parts, request)
    result = await get_part(parts, end, request, emit)
    return replace(result, tensors=end.wanted.tensors)
