"""Repositories of the real hub for programs that read them here: what nobody has of them is brought while it is read.

A file is brought as ``register hf://`` does it (``p2pstore.origins``): nodes that are asked for the same read it once,
in sections, and pass these on. What somebody has whole is read like any object, as much of it as is asked for.
"""

from __future__ import annotations

import asyncio
import logging

from p2pstore.endpoint.arriving import Arriving
from p2pstore.errors import MetadataUnavailable, MooncakeError, NoLivePeer, RemoteError
from p2pstore.hub.documents import RepoFile
from p2pstore.hub.listing import blob_name
from p2pstore.hub.listings import MirroredRepo
from p2pstore.hub.origin import HubOrigin
from p2pstore.hub.patience import PeerPatience
from p2pstore.hub.reading import Reading
from p2pstore.hub.repos import Repo, RepoNotFound
from p2pstore.hub.routes import Route
from p2pstore.objects.steps import Steps
from p2pstore.origins.gathering import Gathering
from p2pstore.origins.hub import HubSource

log = logging.getLogger(__name__)

LOOKS_SECONDS = 6.0
"""For all looks for who has a file that somebody had a moment ago: no client waits for long before the first byte."""


class Mirror:
    """What of the hub this node brings for programs. On the event loop."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._hub = gathering.hub
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """End what is being brought; what came stays."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, route: Route) -> MirroredRepo:
        """A repository at a revision. Raises as ``Listings.find``."""
        return await self._hub.listings.find(route)

    async def reader(self, route: Route, repo: MirroredRepo, number: int, begin: int, end: int) -> Reading | Arriving:
        """Who reads a range of a file, which has at least one byte. Raises what hinders it."""
        file = repo.listing.files[number]

        async def whole(at: int, stop: int, seconds: float = 0.0) -> Reading | None:
            blob = await self._blob(file, seconds)
            return Reading(self._hub.copies.of(blob.record, blob.manifest), 0, at, stop) if blob is not None else None

        async def soon(at: int, stop: int) -> Reading | None:
            try:
                return await whole(at, stop)
            except (RemoteError, MetadataUnavailable) as error:  # meanwhile it is being brought
                log.info("%s", error)
                return None

        found = await whole(begin, end, LOOKS_SECONDS)
        if found is not None:
            return found
        bringing = self._brought(route, repo, file)
        return Arriving(self._gathering, blob_name(file.oid), file.size, bringing, soon, range(begin, end))

    async def _blob(self, file: RepoFile, seconds: float) -> Repo | None:
        """The object that is a file's content, if somebody has it; who should have it is asked for so long."""
        patience = PeerPatience(seconds)
        while True:
            try:
                return await self._hub.repos.find(blob_name(file.oid), "main")
            except (RepoNotFound, NoLivePeer):
                return None
            except RemoteError as error:  # who had it may just have died, or have given it up
                await patience.again(error)

    def _brought(self, route: Route, repo: MirroredRepo, file: RepoFile) -> asyncio.Task[None]:
        """The bringing of a file, which goes on when whoever asked is gone."""
        task = self._tasks.get(file.oid)
        if task is None:
            source = HubSource(self._hub, HubOrigin(route.kind, route.repo, repo.commit))
            task = asyncio.create_task(self._bring(source, file, route.name), name=f"bringing of {file.path}")
            self._tasks[file.oid] = task
            task.add_done_callback(lambda task: self._ended(file, task))
        return task

    async def _bring(self, source: HubSource, file: RepoFile, repo: str) -> None:
        (described,) = await source.described([file])
        await self._gathering.have(source, f"hf://{repo}", described, Steps())

    def _ended(self, file: RepoFile, task: asyncio.Task[None]) -> None:
        del self._tasks[file.oid]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, MooncakeError):
            log.warning("%s: %s", file.path, error)
        elif error is not None:
            log.error("the bringing of %s", file.path, exc_info=error)
