"""Repositories of the real hub: what the cluster has of them, and beyond that the hub itself, which is read once.

Each listing of a commit's files is an object, and so is each file, by its name by content. A node that can reach the
hub claims a file that nobody has, and reads it; meanwhile others wait, and then get it from that node like any object.
A node that cannot reach the hub is served by what there is in the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pstore.cluster.claims import claim, give_back
from p2pstore.errors import (
    MetadataRefused,
    MetadataUnavailable,
    MooncakeError,
    NoLivePeer,
    OriginUnavailable,
    RemoteError,
    StorageError,
)
from p2pstore.holding.incoming import Incoming
from p2pstore.holding.parts import Parts
from p2pstore.holding.register import register_incoming
from p2pstore.hub.copies import Copies
from p2pstore.hub.documents import REPO_NOT_FOUND, REVISION_NOT_FOUND, RepoFile
from p2pstore.hub.fetch import Fetch, Following
from p2pstore.hub.listing import Listing, blob_name, listing_name, listing_names, parse_listing
from p2pstore.hub.patience import PeerPatience
from p2pstore.hub.reading import Reading
from p2pstore.hub.repos import NotYet, Repo, RepoNotFound, Repos, RevisionNotFound
from p2pstore.hub.routes import Route
from p2pstore.hub.upstream import Upstream, UpstreamRefused
from p2pstore.metadata.store import LeaseLost
from p2pstore.objects.choices import DEFAULT_HASH
from p2pstore.objects.names import is_object_name
from p2pstore.objects.steps import Steps
from p2pstore.objects.waiting import to_its_end

log = logging.getLogger(__name__)

FRESH_SECONDS = 10.0
"""What the hub said of a revision is not asked again for so long: a download asks several times."""

MAX_KNOWN = 64
"""Revisions of which that is remembered."""

LOOK_SECONDS = 0.5
LOOKS_SECONDS = 6.0
"""Between two looks for a file that another node reads from the hub, and for all of them."""

READ_ELSEWHERE_SECONDS = 20
"""After which a client is to come again that waits for such a file; it does so five times."""


@dataclass(frozen=True)
class MirroredRepo:
    """A repository of the real hub, as ``Repo`` for those who tell of it."""

    listing: Listing
    paths: Sequence[str]

    @property
    def commit(self) -> str:
        """The hub's own."""
        return self.listing.commit

    @property
    def modified(self) -> float:
        """As the hub says."""
        return self.listing.modified

    def number(self, path: str) -> int:
        """The number of a file; -1 where there is none."""
        try:
            return self.paths.index(path)
        except ValueError:
            return -1

    def file(self, number: int, oid: str = "") -> RepoFile:  # noqa: ARG002 - the hub tells its name
        """A file of it."""
        return self.listing.files[number]


class Mirror:
    """What of the hub this node reads, if it may, and what the cluster has of it. On the event loop."""

    def __init__(self, parts: Parts, copies: Copies, repos: Repos, upstream: Upstream | None) -> None:
        self._parts = parts
        self._copies = copies
        self._repos = repos
        self._upstream = upstream
        self._known: dict[tuple[str, str, str], tuple[float, MirroredRepo]] = {}
        self._fetching: dict[str, Fetch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def reads_hub(self) -> bool:
        """Whether this node may read the hub itself."""
        return self._upstream is not None

    async def close(self) -> None:
        """End what is being read."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._upstream is not None:
            await self._upstream.close()

    async def find(self, route: Route) -> MirroredRepo:
        """A repository at a revision.

        Raises ``RepoNotFound``, ``RevisionNotFound``, ``UpstreamRefused``, and what hinders the question.
        """
        if not is_object_name(route.name):  # as '..', which would be another path of the hub's
            raise RepoNotFound(route.name)
        if route.revision in {".", ".."}:
            raise RevisionNotFound(route.revision)
        key = route.kind, route.repo, route.revision
        now = asyncio.get_running_loop().time()
        if key in self._known and now - self._known[key][0] < FRESH_SECONDS:
            return self._known[key][1]
        fault: MooncakeError | None = None
        listing: Listing | None = None
        try:
            listing = await self._of_hub(route)
        except OriginUnavailable as error:
            log.info("%s; looking in the cluster", error)
            fault = error
        if listing is None:
            listing = await self._in_cluster(route)
        if listing is None:
            raise fault or RepoNotFound(route.name)
        found = MirroredRepo(listing, listing.paths)
        while len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = now, found
        return found

    async def _of_hub(self, route: Route) -> Listing | None:
        """What the hub says now; None where this node does not ask it. The cluster then knows it, too."""
        if self._upstream is None:
            return None
        try:
            listing = await self._upstream.listing(route.kind, route.repo, route.revision)
        except UpstreamRefused as error:
            if error.code == REVISION_NOT_FOUND:
                raise RevisionNotFound(route.revision) from None
            if error.code == REPO_NOT_FOUND:
                raise RepoNotFound(route.name) from None
            raise
        await self._publish((route.kind, route.repo, route.revision), listing)
        return listing

    async def reader(self, route: Route, repo: MirroredRepo, number: int, begin: int, end: int) -> Reading | Following:
        """Who reads a range of a file, which has at least one byte. Raises what hinders it.

        Raises ``NotYet`` while another node reads the file from the hub.
        """
        file = repo.listing.files[number]
        loop = asyncio.get_running_loop()
        until = loop.time() + LOOKS_SECONDS
        while True:
            try:
                blob = await self._blob(file)
            except RemoteError as error:  # who had it may just have died, or have given it up
                if loop.time() > until:
                    raise
                log.info("%s; looking again", error)
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if blob is not None:
                return Reading(self._copies.of(blob.record, blob.manifest), 0, begin, end)
            fetch = await self._under_way(file)
            if fetch is None and self._upstream is None:
                detail = "nobody who is alive holds it, and no hub is known here"
                raise NoLivePeer(name=blob_name(file.oid), detail=detail)
            if fetch is None:
                fetch = await to_its_end(self._claim(route, repo, file))
            if fetch is not None:
                return Following(fetch, begin, end)
            if loop.time() > until:
                raise NotYet(f"another node reads {file.path} from the hub", READ_ELSEWHERE_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def _under_way(self, file: RepoFile) -> Fetch | None:
        """The reading of a file from the hub by this node; one that has just failed is over first."""
        fetch, task = self._fetching.get(file.oid), self._tasks.get(file.oid)
        if fetch is not None and fetch.failed and task is not None:
            await asyncio.wait({task})
            fetch = self._fetching.get(file.oid)
        return fetch

    async def _claim(self, route: Route, repo: MirroredRepo, file: RepoFile) -> Fetch | None:
        """Begin to read a file from the hub, if that is this node's to do. What is claimed is begun."""
        if not await self._claimed(file):
            return None
        return self._fetching.get(file.oid) or self._begin(route, repo, file)

    async def _blob(self, file: RepoFile) -> Repo | None:
        """The object that is a file's content, if somebody has it."""
        try:
            return await self._repos.find(blob_name(file.oid), "main")
        except (RepoNotFound, NoLivePeer):
            return None

    async def _claimed(self, file: RepoFile) -> bool:
        """Whether this node is to read a file from the hub. Where nobody can say so, it does."""
        name = blob_name(file.oid)
        try:
            mine = await claim(self._parts.registry, name)
            if mine and await self._parts.registry.find(name) is not None:  # somebody was just through with it
                await give_back(self._parts.registry, name)
                mine = False
        except (LeaseLost, MetadataUnavailable, MetadataRefused) as error:
            log.info("%s is read without asking others: %s", file.path, error)
            return True
        return mine

    def _begin(self, route: Route, repo: MirroredRepo, file: RepoFile) -> Fetch:
        upstream = self._upstream
        assert upstream is not None  # noqa: S101 - it was looked at
        where = Route("resolve", route.kind, route.repo, repo.commit, file.path)
        fetch = Fetch(file, upstream.url, lambda at: upstream.stream(where, repo.commit, file.size, at, file.size))
        self._fetching[file.oid] = fetch
        task = asyncio.create_task(self._bring(fetch), name=f"reading of {file.path} from the hub")
        self._tasks[file.oid] = task
        task.add_done_callback(lambda task: self._ended(file.oid, task))
        return fetch

    def _ended(self, oid: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(oid) is task:  # and not the next one's
            del self._tasks[oid]

    async def _bring(self, fetch: Fetch) -> None:
        """Read a file from the hub, and have the cluster know it. Those who follow the fetch hear of its faults."""
        name = blob_name(fetch.file.oid)
        try:
            incoming = await fetch.run(self._kept(), name, DEFAULT_HASH)
            await register_incoming(self._parts, incoming, name, force=False, steps=Steps())
        except MooncakeError as error:
            log.warning("%s: %s", fetch.file.path, error)
        finally:
            if self._fetching.get(fetch.file.oid) is fetch:
                del self._fetching[fetch.file.oid]
            with contextlib.suppress(LeaseLost, MooncakeError):  # it goes with the lease
                await to_its_end(give_back(self._parts.registry, name))

    async def _publish(self, key: tuple[str, str, str], listing: Listing) -> None:
        """Have the cluster know a listing, for nodes that cannot ask the hub."""
        data = listing.to_bytes()
        for name in listing_names(*key, listing.commit):
            try:
                incoming = await to_its_end(asyncio.to_thread(_written, self._kept(), name, data))
                await register_incoming(self._parts, incoming, name, force=True, steps=Steps())
            except MooncakeError as error:
                log.info("others do not hear what the hub says of %s: %s", key[1], error)
                return

    async def _in_cluster(self, route: Route) -> Listing | None:
        """What another node has read from the hub of that revision, if somebody has that."""
        name, patience = listing_name(route.kind, route.repo, route.revision), PeerPatience()
        while True:
            try:
                repo = await self._repos.find(name, "main")
                data = await self._content(repo)
                break
            except (RepoNotFound, NoLivePeer):
                return None
            except RemoteError as error:
                await patience.again(error)
        try:
            return parse_listing(data)
        except ValueError as error:
            log.warning("%s: %s", name, error)
            return None

    async def _content(self, repo: Repo) -> bytes:
        """All of a small object. Raises what hinders it."""
        if not repo.manifest.size:
            return b""
        reading = Reading(self._copies.of(repo.record, repo.manifest), 0, 0, repo.manifest.size)
        await reading.first()
        return b"".join([bytes(piece) async for piece in reading.pieces()])

    def _kept(self) -> Path:
        directory = self._parts.options.kept
        if directory is None:
            raise StorageError(path="this node", detail="it has no directory to keep what it brings")
        return directory


def _written(directory: Path, name: str, data: bytes) -> Incoming:
    incoming = Incoming(directory, name, DEFAULT_HASH)
    try:
        incoming.write(data)
    except BaseException:
        incoming.abort()
        raise
    return incoming
