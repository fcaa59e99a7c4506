"""Repositories of the real hub: what the hub says of them, and what the cluster knows of that.

Each listing of a commit's files is an object. A node that cannot reach the hub is told by what there is in the cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pstore.errors import (
    MooncakeError,
    NoLivePeer,
    OriginUnavailable,
    RemoteError,
    StorageError,
)
from p2pstore.holding.incoming import Incoming, begun
from p2pstore.holding.parts import Parts
from p2pstore.holding.register import register_incoming
from p2pstore.hub.copies import Copies
from p2pstore.hub.documents import REPO_NOT_FOUND, REVISION_NOT_FOUND, RepoFile
from p2pstore.hub.listing import Listing, listing_name, listing_names, parse_listing
from p2pstore.hub.patience import PeerPatience
from p2pstore.hub.reading import Reading
from p2pstore.hub.repos import Repo, RepoNotFound, Repos, RevisionNotFound
from p2pstore.hub.routes import Route
from p2pstore.hub.upstream import Upstream, UpstreamRefused
from p2pstore.objects.choices import DEFAULT_HASH
from p2pstore.objects.names import is_object_name
from p2pstore.objects.steps import Steps

log = logging.getLogger(__name__)

FRESH_SECONDS = 10.0
"""What the hub said of a revision is not asked again for so long: a download asks several times."""

MAX_KNOWN = 64
"""Revisions of which that is remembered."""


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


_Key = tuple[str, str, str]
"""Kind, repository and revision."""


class Listings:
    """What repositories have. On the event loop."""

    def __init__(self, parts: Parts, copies: Copies, repos: Repos, upstream: Upstream | None) -> None:
        self._parts = parts
        self._copies = copies
        self._repos = repos
        self._upstream = upstream
        self._known: dict[_Key, tuple[float, MirroredRepo]] = {}
        self._finding: dict[_Key, asyncio.Task[MirroredRepo]] = {}

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = list(self._finding.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, route: Route) -> MirroredRepo:
        """A repository at a revision. To find out goes on when whoever asked is gone: the next who asks has it sooner.

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
        if key not in self._finding:
            task = self._finding[key] = asyncio.create_task(self._find(route, key), name=f"listing of {route.repo}")
            task.add_done_callback(lambda task: self._found(key, task))
        return await asyncio.shield(self._finding[key])

    def _found(self, key: _Key, task: asyncio.Task[MirroredRepo]) -> None:
        del self._finding[key]
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more

    async def _find(self, route: Route, key: _Key) -> MirroredRepo:
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
        self._known[key] = asyncio.get_running_loop().time(), found
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

    async def _publish(self, key: tuple[str, str, str], listing: Listing) -> None:
        """Have the cluster know a listing, for nodes that cannot ask the hub."""
        data = listing.to_bytes()
        for name in listing_names(*key, listing.commit):
            try:
                incoming = await begun(_written, self._kept(), name, data)
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
