"""The end of a get that brings a part of an object into files, which are no object of their own."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence

from engine.files.refusals import said
from engine.memory.file_spans import FileSpan
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
from p2pstore.tensors.files import TensorFiles
from p2pstore.tensors.plan import left_out


class PartEnd(FileEnd):
    """Files at a path, made of pieces of the object."""

    def __init__(self, parts: Parts, request: GetRequest) -> None:
        super().__init__(parts, request)
        self._wanted: TensorFiles | None = None

    @property
    def wanted(self) -> TensorFiles:
        """What is written, once it is known."""
        assert self._wanted is not None  # noqa: S101 - it was looked at
        return self._wanted

    @abstractmethod
    async def choose(self, get: Pipeline) -> TensorFiles:
        """Find out what is wanted of the object."""

    async def is_over(self, get: Pipeline) -> bool:
        """See ``End.is_over``. Raises as ``FileEnd.is_over`` and ``choose``."""
        request = self._request
        self.dest = await asyncio.to_thread(resolved, request.dest)
        self._check_home()
        self._wanted = await self.choose(get)
        if await self.is_done(get):
            return True
        await self._check_target(get, self.wanted.shape)
        if request.dry_run:
            await self._estimate(get)
        return request.dry_run

    async def is_done(self, get: Pipeline) -> bool:  # noqa: ARG002 - most cannot know without bringing it
        """Whether just what is wanted lies at the destination."""
        return False

    async def _estimate(self, get: Pipeline) -> None:
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

    async def old_chunks(self, get: Pipeline) -> Places:  # noqa: ARG002 - as the base has it
        """See ``End.old_chunks``: what is replaced has its chunks in other places."""
        return {}

    async def begin(
        self,
        get: Pipeline,  # noqa: ARG002 - as the base has it
        destination: FileDestination,  # noqa: ARG002 - as the base has it
    ) -> Callable[[range], None] | None:
        """See ``End.begin``: nothing is passed on."""
        return None

    async def hold(self, get: Pipeline, spans: Sequence[FileSpan]) -> None:  # noqa: ARG002 - it is no object
        """See ``End.hold``."""
        for text in said.of(str(self.dest)):
            get.note(text)


async def get_part(parts: Parts, end: PartEnd, request: GetRequest, emit: Emit) -> GetResult:
    """Bring a part of an object to a path. Raises as ``end`` and ``get_files``."""
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
        seeding=end.seeding,
        dry_run=request.dry_run,
        files=len(end.wanted.shape.files),
    )
