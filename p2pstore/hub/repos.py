"""Which object a repository is, at which revision, and what its files are called by their content."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from p2pstore.cluster.manifests import first_that_answers
from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.tags import tags_of
from p2pstore.cluster.versions import look_up
from p2pstore.errors import (
    AmbiguousDigest,
    MetadataRefused,
    MetadataUnavailable,
    NoLivePeer,
    PeerBusy,
    PeerHasNot,
    RemoteError,
    SecretRefused,
)
from p2pstore.holding.parts import Parts
from p2pstore.hub.copies import Copies
from p2pstore.hub.documents import RepoFile, commit_of, is_commit, way_of
from p2pstore.hub.routes import DEFAULT_REVISION
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.names import is_object_name
from p2pstore.objects.oid import SHA256
from p2pstore.objects.reference import Reference

log = logging.getLogger(__name__)

MAX_MANIFESTS = 64
"""Of objects that are read through the interface, so many stay known."""

ASKED_AT_ONCE = 16
"""Files of one object whose names by content are asked for at a time."""


BUSY_TRIES = 60
BUSY_PAUSE_SECONDS = 0.5
"""How often a holder is asked again that is still reading a file to find its name, or is busy otherwise."""


class RepoNotFound(Exception):
    """There is no object of that name."""


class RevisionNotFound(Exception):
    """There is one, and it is not, and was not as far as this node knows, what the revision says."""


AGAIN_SECONDS = 5
"""After which a client is to come again. It does so five times."""


class NotYet(Exception):
    """The client is to come again, in ``seconds``."""

    def __init__(self, why: str, seconds: int = AGAIN_SECONDS) -> None:
        super().__init__(why)
        self.seconds = seconds


@dataclass(frozen=True)
class Repo:
    """An object as a repository: ``paths`` are those of its files, also where the object is a single file."""

    record: ObjectRecord
    manifest: Manifest
    paths: Sequence[str]

    @property
    def commit(self) -> str:
        """What the hub would call this revision."""
        return commit_of(self.manifest.digest)

    def number(self, path: str) -> int:
        """The number of a file; -1 where there is none."""
        try:
            return self.paths.index(path)
        except ValueError:
            return -1

    def file(self, number: int, oid: str = "") -> RepoFile:
        """A file of it."""
        path, size = self.paths[number], self.manifest.columns.sizes[number]
        return RepoFile(path, size, oid, lfs=way_of(path, size) == SHA256)

    @property
    def modified(self) -> float:
        """When it was registered, in seconds since the epoch."""
        return self.record.created


class Repos:
    """What there is. On the event loop."""

    def __init__(self, parts: Parts, copies: Copies) -> None:
        self._parts = parts
        self._copies = copies
        self._manifests: dict[str, Manifest] = {}
        self._asking: dict[tuple[str, int], asyncio.Task[str]] = {}

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, name: str, revision: str) -> Repo:
        """The object of that name at a revision.

        Raises ``RepoNotFound``, ``RevisionNotFound``, and what hinders the question: ``MetadataUnavailable``,
        ``MetadataRefused``, ``NoLivePeer``, or the last holder's fault.
        """
        record = await self._record(name, revision)
        manifest = await self._manifest(record)
        return Repo(record, manifest, await asyncio.to_thread(_paths, record, manifest))

    async def _record(self, name: str, revision: str) -> ObjectRecord:
        """What stands for a name. One that this node holds is served when nobody can be asked."""
        if not is_object_name(name):
            raise RepoNotFound(name)
        held = [holding.record for holding in self._parts.holdings.named(name)]
        try:
            current = await self._parts.registry.find(name)
        except (MetadataUnavailable, MetadataRefused):
            if not held:
                raise
            current = None
        records = ([current] if current is not None else []) + held
        if not records:
            raise RepoNotFound(name)
        if revision in {DEFAULT_REVISION, "", "HEAD"}:
            return records[0]
        for record in records:
            if is_commit(revision) and record.manifest.startswith(revision):
                return record
        wanted = Reference(name, digest=revision) if is_commit(revision) else Reference(name, tag=revision)
        with contextlib.suppress(MetadataUnavailable, MetadataRefused, AmbiguousDigest):
            meant = await look_up(self._parts.registry, wanted)
            if meant is not None and await self._parts.registry.replicas(meant.manifest):
                return meant
        raise RevisionNotFound(revision)

    async def tags(self, name: str) -> dict[str, str]:
        """The tags of an object, and the commit that each leads to; none where nobody can say so."""
        with contextlib.suppress(MetadataUnavailable, MetadataRefused):
            return {tag.tag: commit_of(tag.manifest) for tag in await tags_of(self._parts.registry, name)}
        return {}

    async def _manifest(self, record: ObjectRecord) -> Manifest:
        known = self._parts.holdings.manifest(record.manifest) or self._manifests.get(record.manifest)
        if known is None:
            controls = await self._controls(record.manifest)
            if not controls:
                raise NoLivePeer(name=record.name, detail="nobody who is alive holds it")
            known = await first_that_answers(self._parts.client, controls, record.manifest, log.info)
            await asyncio.to_thread(lambda: known.lengths if known else None)
            while len(self._manifests) >= MAX_MANIFESTS:
                del self._manifests[next(iter(self._manifests))]
            self._manifests[record.manifest] = known
        return known

    async def _controls(self, digest: str) -> list[tuple[str, str]]:
        """Who else holds it, those who have all of it first: node and control address."""
        registry = self._parts.registry
        holders = await registry.replicas(digest)
        order = sorted(holders, key=lambda node: (holders[node].state != "complete", node))
        found = await registry.nodes([node for node in order if node != registry.node])
        return [(node, record.control) for node, record in found.items()]

    async def oid(self, repo: Repo, number: int) -> str:
        """What a file is called by its content: of one that lies here found out here, else told by who has it.

        Where nobody says so, the file is brought first. All that goes on when whoever asked is gone. Empty where the
        bytes here are wrong. Raises what hinders it.
        """
        key = repo.manifest.digest, number
        if key not in self._asking:
            task = self._asking[key] = asyncio.create_task(self._oid(repo, number), name="name by content")
            task.add_done_callback(lambda task: self._asked(key, task))
        return await asyncio.shield(self._asking[key])

    def _asked(self, key: tuple[str, int], task: asyncio.Task[str]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more

    async def _oid(self, repo: Repo, number: int) -> str:
        manifest, oids = repo.manifest, self._parts.oids
        way = way_of(repo.paths[number], manifest.columns.sizes[number])
        if not manifest.columns.sizes[number]:
            return await oids.of(manifest, number, way)
        known = (await oids.known(manifest.digest)).get((number, way))
        if known:
            return known
        copy = self._copies.of(repo.record, manifest)
        chunks = range(*manifest.first_chunks[number : number + 2])
        if not all(map(copy.there, chunks)):
            told = await self._told(repo, number, way)
            if told:
                await oids.learn(manifest.digest, number, way, told)
                return told
            await copy.want(chunks)
            for chunk in chunks:
                await copy.arrival(chunk)
        return await oids.of(manifest, number, way)

    async def _told(self, repo: Repo, number: int, way: str) -> str:
        """What a holder says; empty where none does."""
        for _, control in await self._controls(repo.manifest.digest):
            for _ in range(BUSY_TRIES):
                try:
                    return await self._parts.client.oid(control, repo.manifest.digest, number, way)
                except PeerBusy:
                    await asyncio.sleep(BUSY_PAUSE_SECONDS)
                except PeerHasNot:
                    break
                except (RemoteError, SecretRefused) as error:
                    log.info("%s", error)
                    break
        return ""

    async def oids(self, repo: Repo) -> list[str]:
        """The same of all files, in order."""
        room = asyncio.Semaphore(ASKED_AT_ONCE)

        async def one(number: int) -> str:
            async with room:
                return await self.oid(repo, number)

        return list(await asyncio.gather(*(one(number) for number in range(len(repo.paths)))))


def _paths(record: ObjectRecord, manifest: Manifest) -> Sequence[str]:
    if manifest.kind == "file":
        return [record.name.rpartition("/")[2]]
    return list(manifest.columns.paths)
