"""A get of an object's tensors into safetensors files of their own: whole and verified at their destination."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from engine.files.refusals import said
from engine.memory.file_spans import FileSpan
from p2pstore.errors import TensorNotFound
from p2pstore.holding.parts import Parts
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.repeats import Repeats
from p2pstore.objects.steps import Steps
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.get import FileEnd, GetRequest, GetResult
from p2pstore.pull.old_chunks import Places
from p2pstore.pull.pipeline import Pipeline
from p2pstore.pull.reuse import LocalChunks
from p2pstore.pull.run import Emit
from p2pstore.pull.target import resolved
from p2pstore.pull.tensor_file_destination import TensorFileDestination
from p2pstore.pull.tensor_survey import Survey, survey
from p2pstore.pull.workers import SCRATCH_BYTES
from p2pstore.tensors.files import TensorFiles, tensor_files
from p2pstore.tensors.header import HeaderFault
from p2pstore.tensors.patterns import NamePatterns
from p2pstore.tensors.plan import left_out


class TensorFilesEnd(FileEnd):
    """Safetensors files at a path: one for each of the object's that has any of the tensors. They are not served."""

    def __init__(self, parts: Parts, request: GetRequest) -> None:
        """Raises ``UsageError`` for patterns that are none."""
        super().__init__(parts, request)
        self._patterns = NamePatterns(request.tensors)
        self._wanted: TensorFiles | None = None
        self._survey: Survey | None = None
        self._had = 0

    @property
    def wanted(self) -> TensorFiles:
        """What is written, once it is known."""
        assert self._wanted is not None  # noqa: S101 - it was looked at
        return self._wanted

    async def is_over(self, get: Pipeline[Any]) -> bool:
        """See ``End.is_over``: headers are read, even where nothing is to be written.

        Raises as ``FileEnd.is_over``, ``TensorNotFound`` or ``BadTensors``.
        """
        request = self._request
        self.dest = await asyncio.to_thread(resolved, request.dest)
        self._check_home()
        found = await survey(get, request.name, self._patterns, "", models=False)
        get.steps.begin("planning")
        self._wanted = await get.in_thread(self._made, found)
        self._survey = found
        await self._check_target(get, self.wanted.shape)
        if request.dry_run:
            await self._estimate(get)
        return request.dry_run

    def _made(self, found: Survey) -> TensorFiles:
        wanted = found.wanted(self._patterns)
        if not wanted:
            raise TensorNotFound(name=found.name, patterns=", ".join(map(repr, self._patterns.patterns)), found="none")
        try:
            return tensor_files(found.manifest, wanted, found.headers, found.indexes)
        except HeaderFault as fault:
            raise found.fault("", fault) from None

    async def _estimate(self, get: Pipeline[Any]) -> None:
        """See ``FileEnd``."""

        def missing() -> int:
            local = LocalChunks(self._parts.holdings, get.manifest, {})
            chunks = map(get.manifest.chunk, left_out(get.manifest, self.wanted.pieces).missing())
            return sum(chunk.length for chunk in chunks if not local.has(chunk))

        get.brought.pulled = await get.in_thread(missing)
        get.brought.peers = {n: 0 for n, _ in get.resolved.controls}

    def make(self, manifest: Manifest, cancelled: threading.Event, steps: Steps) -> FileDestination:
        """See ``End.make``. Raises as ``FileDestination``."""
        shape = self.wanted.shape
        return TensorFileDestination(
            self.dest,
            manifest,
            self._request.name,
            self.wanted,
            force=self._force,
            cancelled=cancelled,
            check=lambda: self._check_contents(shape, manifest),
            steps=steps,
        )

    def repeats(self, manifest: Manifest) -> Repeats:  # noqa: ARG002 - as the base has it
        """See ``End.repeats``: none, since the chunk that another one equals is mostly not wanted."""
        return Repeats()

    def check(self, destination: FileDestination, cancelled: threading.Event) -> None:
        """See ``End.check``: what an interrupted get left, and what came along with the headers."""
        assert isinstance(destination, TensorFileDestination)  # noqa: S101 - made so above
        assert self._survey is not None  # noqa: S101 - it was looked at
        destination.recheck(cancelled)
        self._had = destination.take(self._survey.chunks, memoryview(bytearray(SCRATCH_BYTES)))
        self._survey = None

    async def old_chunks(self, get: Pipeline[Any]) -> Places:  # noqa: ARG002 - as the base has it
        """See ``End.old_chunks``: what is replaced has its chunks in other places."""
        return {}

    async def begin(
        self,
        get: Pipeline[Any],
        destination: FileDestination,  # noqa: ARG002 - as the base has it
    ) -> Callable[[range], None] | None:
        """See ``End.begin``: nothing is passed on. What came with the headers was counted when it came."""
        get.brought.reused -= self._had
        return None

    async def hold(self, get: Pipeline[Any], spans: Sequence[FileSpan]) -> None:  # noqa: ARG002 - it is no object
        """See ``End.hold``."""
        for text in said.of(str(self.dest)):
            get.note(text)


async def get_tensor_files(parts: Parts, request: GetRequest, emit: Emit) -> GetResult:
    """Bring the tensors of a request to a path. Raises as ``TensorFilesEnd`` and ``get_files``."""
    end = TensorFilesEnd(parts, request)
    get = Pipeline(parts, end, request.name, transport=request.transport, peers=request.peers, emit=emit)
    await get.run()
    return GetResult(
        request.name,
        get.manifest.digest,
        str(end.dest),
        end.wanted.shape.size,
        bytes_pulled=get.brought.pulled,
        bytes_reused=get.brought.reused,
        seconds=get.seconds,
        transport=get.brought.transport,
        peers=get.brought.peers,
        dry_run=request.dry_run,
        tensors=end.wanted.tensors,
    )
