"""A repository of the hub as an origin: its files by their names by content, which they bear in the cluster, too.

What the cluster has read of a repository before, whoever asked, is found there; so a node that may not read the hub
itself can bring what others have of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from p2pstore.errors import HubNotRead, HubUnset, OriginNotFound, OriginUnavailable
from p2pstore.hub.documents import RepoFile, is_commit
from p2pstore.hub.hub import Hub
from p2pstore.hub.listing import blob_name
from p2pstore.hub.origin import HubOrigin
from p2pstore.hub.repos import RepoNotFound, RevisionNotFound
from p2pstore.hub.routes import Route
from p2pstore.objects.chosen import takes
from p2pstore.objects.oid import GIT, SHA256
from p2pstore.objects.selection import Selection
from p2pstore.origins.sections import MIN_SECTION_BYTES
from p2pstore.origins.source import OriginFile


class HubSource:
    """See ``Source``."""

    def __init__(self, hub: Hub, origin: HubOrigin) -> None:
        self.revision = origin.revision if is_commit(origin.revision) else ""
        self._listings, self._upstream = hub.listings, hub.upstream
        self._origin = origin

    @property
    def reads(self) -> bool:
        """See ``Source``."""
        return self._upstream is not None

    async def sure(self, file: OriginFile) -> bool:  # noqa: ARG002 - of any
        """See ``Source.sure``."""
        return True

    async def close(self) -> None:
        """See ``Source.close``. The connections are the hub's readers', which use them again."""

    async def files(self, selection: Selection) -> Sequence[OriginFile]:
        """See ``Source.files``. Raises ``HubUnset`` where no hub is known, and nobody has read that repository.

        What the hub refuses is an ``UpstreamRefused``, also in the middle.
        """
        origin = self._origin
        try:
            repo = await self._listings.find(origin.route)
        except RepoNotFound:
            if not self.reads:
                raise HubUnset(origin=origin) from None
            raise OriginNotFound(origin=origin, detail="there is no such repository") from None
        except RevisionNotFound:
            raise OriginNotFound(origin=origin, detail=f"it has no revision {origin.revision!r}") from None
        self.revision = repo.commit
        return await self.described([file for file in repo.listing.files if takes(selection, file.path)])

    async def described(self, files: Sequence[RepoFile]) -> Sequence[OriginFile]:
        """Files of the commit that ``revision`` is, as they are read. Raises ``UpstreamRefused``."""
        ranges = await self._gives_ranges(files)
        return [_file(file, ranges=ranges) for file in files]

    async def _gives_ranges(self, files: Sequence[RepoFile]) -> bool:
        """Whether large files can be read by parts. What nobody can be asked now is taken to be as usual."""
        large = next((file for file in files if file.size > MIN_SECTION_BYTES), None)
        if large is None or self._upstream is None:
            return True
        try:
            return await self._upstream.gives_ranges(self._route(large.path), self.revision)
        except OriginUnavailable:
            return True

    def _route(self, path: str) -> Route:
        return Route("resolve", self._origin.kind, self._origin.repo, self.revision, path)

    async def stream(self, file: OriginFile, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """See ``Source.stream``."""
        if self._upstream is None:
            raise HubNotRead(file=file.path)
        async with aclosing(
            self._upstream.stream(self._route(file.path), self.revision, file.size, begin, end)
        ) as blocks:
            async for block in blocks:
                yield block


def _file(file: RepoFile, *, ranges: bool) -> OriginFile:
    name, kind = blob_name(file.oid), SHA256 if file.lfs else GIT
    return OriginFile(file.path, name, file.size, file.oid, hashes=((kind, file.oid),), ranges=ranges, name=name)
