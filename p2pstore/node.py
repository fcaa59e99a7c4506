"""The node: everything that one member of the cluster does, whether an agent's process or a training job holds it.

It owns the parts that ``p2pstore.assembly`` makes, and offers the operations that the control plane and the Python API
call: register, get, list, info, unregister, verify, status. All of it runs on one event loop; what blocks runs in
threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine._version import __version__
from engine.errors import MooncakeError
from engine.forks import Origin
from engine.net import addresses
from p2pstore.assembly import assemble, claim_name
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.tags import describe_tags, remove_tag, stale_tags, tag_version, tags_of
from p2pstore.cluster.versions import history, look_up, the_one, unknown
from p2pstore.cluster.watching import watch
from p2pstore.errors import (
    CopyStays,
    MetadataFull,
    NotHeld,
    PathNotFound,
    TagNotFound,
    UsageError,
    VersionNotHeld,
    to_wire,
)
from p2pstore.holding.catalog import Holding
from p2pstore.holding.incoming import Incoming
from p2pstore.holding.part_watcher import PartWatcher
from p2pstore.holding.parts import Parts
from p2pstore.holding.prune import PruneRequest, delete_all, prune
from p2pstore.holding.register import Note, register, register_incoming, register_many, register_memory
from p2pstore.holding.verify import verify_holding
from p2pstore.info import describe, superseded
from p2pstore.metadata.store import MetadataStore
from p2pstore.node_options import NodeOptions
from p2pstore.objects.memory_objects import Buffers
from p2pstore.objects.names import check_object_name
from p2pstore.objects.reference import ALGORITHM, SHOWN_DIGITS, Reference, check_tag, parse_reference
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.pull.chosen_get import get_chosen, located
from p2pstore.pull.get import GetRequest, GetResult, get_files
from p2pstore.pull.memory_get import get_into
from p2pstore.pull.run import Emit
from p2pstore.pull.running import Gets
from p2pstore.pull.shared_get import share_tensors
from p2pstore.pull.spread_get import SpreadRequest, spread_tensors
from p2pstore.pull.stream_get import Take, stream
from p2pstore.pull.tensor_files_get import get_tensor_files
from p2pstore.pull.tensor_get import TensorRequest, load_tensors
from p2pstore.pull.tensor_outlet import Outlet
from p2pstore.pull.tensor_stream import stream_tensors
from p2pstore.sharing.launch import Launch
from p2pstore.supervisor import Supervisor, thread_report

log = logging.getLogger(__name__)

MAX_LISTING = 1000
"""Objects in one page of a listing."""


class Node:
    """A running node. Make one with ``await Node.start(...)``, end it with ``await node.close()``."""

    def __init__(
        self, parts: Parts, membership: Membership, supervisor: Supervisor, closing: contextlib.AsyncExitStack
    ) -> None:
        """``closing`` ends the parts and the supervisor's tasks."""
        self._origin = Origin("this node")
        self.parts = parts
        self.supervisor = supervisor
        self.membership = membership
        self.name = parts.name
        self.record = parts.record
        self.engine = parts.engine
        self.registry = parts.registry
        self.holdings = parts.holdings
        self.upload_limit = parts.upload_limit
        self.download_limit = parts.download_limit
        self.gets = Gets(parts.counts.gets)
        self._closing = closing

    @classmethod
    async def start(cls, options: NodeOptions, store: MetadataStore, supervisor: Supervisor | None = None) -> Node:
        """Start every part, serve what the catalog holds, and join the cluster.

        ``supervisor`` keeps the node's background tasks, and tells whoever made it when the node is to be closed since
        one of them does not work. It is closed with the node.

        Raises ``BadName``, ``ListenRefused``, ``NodeNameTaken``, ``UsageError`` (a port is taken), ``StorageError``,
        ``MetadataUnavailable`` or ``MetadataRefused``.
        """
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(store.close)
            supervisor = supervisor or Supervisor()
            parts, membership = await assemble(options, store, supervisor, closing)
            await claim_name(parts)
            await parts.holdings.restore()
            await parts.part_copies.restore()
            with contextlib.suppress(MetadataFull):  # it can get, and will be known when there is room
                await membership.join()
            node = cls(parts, membership, supervisor, closing.pop_all())
        supervisor.start("lease keeper", "node", membership.keep)
        supervisor.start("source watcher", "node", parts.watcher.watch)
        supervisor.start("part watcher", "node", PartWatcher(parts.part_copies).watch)
        supervisor.start("cache keeper", "node", parts.cache.watch)
        supervisor.start("source checker", "node", parts.checker.run)
        return node

    async def close(self) -> None:
        """Leave the cluster and stop every part; twice is harmless. In a forked child it does nothing."""
        if self._origin.elsewhere:
            return
        await self._closing.aclose()

    # Operations

    async def register(
        self,
        path: Path,
        name: str,
        *,
        hash_name: str,
        chunk_size: int = 0,
        force: bool = False,
        tags: Sequence[str] = (),
        selection: Selection | None = None,
        steps: Steps | None = None,
        note: Note | None = None,
    ) -> dict[str, Any]:
        """See ``p2pstore.holding.register.register``."""
        self._origin.check()
        return await self._counted(
            register(
                self.parts,
                path,
                name,
                hash_name=hash_name,
                chunk_size=chunk_size,
                force=force,
                tags=tags,
                selection=selection,
                steps=steps,
                note=note,
            )
        )

    def incoming(self, name: str, hash_name: str, chunk_size: int = 0) -> Incoming:
        """Begin to keep a stream; ``register_incoming`` ends that. Blocks a little. Raises as ``Incoming``."""
        directory = self.parts.options.kept
        if directory is None:
            raise UsageError(detail="this node has no directory to keep what comes as a stream")
        return Incoming(directory, check_object_name(name), hash_name, chunk_size)

    async def register_incoming(
        self, incoming: Incoming, name: str, *, force: bool, steps: Steps, tags: Sequence[str] = ()
    ) -> dict[str, Any]:
        """See ``p2pstore.holding.register.register_incoming``."""
        self._origin.check()
        return await self._counted(register_incoming(self.parts, incoming, name, force=force, steps=steps, tags=tags))

    async def register_many(
        self,
        items: Sequence[tuple[Path, str]],
        *,
        hash_name: str,
        chunk_size: int = 0,
        force: bool = False,
        tags: Sequence[str] = (),
        selection: Selection | None = None,
        progress: Callable[[int, int], None] | None = None,
        note: Note | None = None,
    ) -> dict[str, Any]:
        """See ``p2pstore.holding.register.register_many``."""
        self._origin.check()
        return await self._counted(
            register_many(
                self.parts,
                items,
                hash_name=hash_name,
                chunk_size=chunk_size,
                force=force,
                tags=tags,
                selection=selection,
                progress=progress,
                note=note,
            )
        )

    async def register_memory(
        self,
        name: str,
        buffers: Buffers,
        *,
        hash_name: str,
        chunk_size: int = 0,
        force: bool = False,
        tags: Sequence[str] = (),
    ) -> dict[str, Any]:
        """See ``p2pstore.holding.register.register_memory``."""
        self._origin.check()
        making = register_memory(
            self.parts, name, buffers, hash_name=hash_name, chunk_size=chunk_size, force=force, tags=tags
        )
        return await self._counted(making)

    async def _counted(self, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        """What a register answers; it is counted, and what it made."""
        counts = self.parts.counts
        with counts.registers.one():
            answer = await work
        counts.registered += len(answer["objects"]) if "objects" in answer else 1
        return answer

    async def get(self, request: GetRequest, emit: Emit) -> GetResult:
        """See ``p2pstore.pull.get``."""
        self._origin.check()
        request = await located(self.parts, replace(request, peers=await self._controls(request.peers)))
        if request.tensors and request.choice:
            raise UsageError(detail="some tensors, and some files or bytes: one of them can be asked for")
        if request.update and (request.tensors or request.choice or request.force or request.wipe):
            raise UsageError(detail="an update replaces a version by another, as a whole, and nothing that is neither")
        bring = get_tensor_files if request.tensors else get_chosen if request.choice else get_files
        if request.dry_run:
            return await bring(self.parts, request, emit)
        async with self.gets.one(request.name, str(request.dest), emit) as tell:
            return await bring(self.parts, request, tell)

    async def stream(self, request: GetRequest, emit: Emit, take: Take) -> GetResult:
        """See ``p2pstore.pull.stream_get``."""
        self._origin.check()
        request = await located(self.parts, replace(request, peers=await self._controls(request.peers)))
        async with self.gets.one(request.name, "-", emit) as tell:
            return await stream(self.parts, request, tell, take)

    async def get_into(
        self,
        name: str,
        buffers: Buffers,
        *,
        transport: str = "auto",
        peers: tuple[str, ...] = (),
        emit: Emit = lambda _: None,
    ) -> dict[str, Any]:
        """See ``p2pstore.pull.memory_get``."""
        self._origin.check()
        controls = await self._controls(peers)
        async with self.gets.one(name, "memory", emit) as tell:
            return await get_into(self.parts, name, buffers, transport=transport, peers=controls, emit=tell)

    async def load_tensors(
        self, request: TensorRequest, emit: Emit = lambda _: None, launch: Launch | None = None
    ) -> dict[str, Any]:
        """See ``p2pstore.pull.tensor_get``, and ``shared_get`` for who is one of a ``launch``."""
        self._origin.check()
        request = replace(request, peers=await self._controls(request.peers))
        async with self.gets.one(request.name, "memory", emit) as tell:
            if launch is not None:
                return await share_tensors(self.parts, request, launch, tell)
            return await load_tensors(self.parts, request, tell)

    async def spread_tensors(self, request: SpreadRequest, emit: Emit = lambda _: None) -> list[dict[str, Any]]:
        """See ``p2pstore.pull.spread_get``."""
        self._origin.check()
        request = replace(request, peers=await self._controls(request.peers))
        async with self.gets.one(request.name, "memory", emit) as tell:
            return await spread_tensors(self.parts, request, tell)

    async def stream_tensors(self, request: TensorRequest, outlet: Outlet, emit: Emit = lambda _: None) -> None:
        """See ``p2pstore.pull.tensor_stream``."""
        self._origin.check()
        outlet.attach()
        request = replace(request, peers=await self._controls(request.peers))
        async with self.gets.one(request.name, "memory", emit) as tell:
            await stream_tensors(self.parts, request, outlet, tell)

    async def _controls(self, peers: Sequence[str]) -> tuple[str, ...]:
        """The addresses of peers that a user named, by their addresses or their names. Raises ``NodeNotFound``."""
        return tuple([await self.registry.control_of(peer) for peer in peers])

    async def listing(self, prefix: str, *, limit: int, after: str) -> dict[str, Any]:
        """One page of the objects whose names begin with ``prefix``."""
        self._origin.check()
        found, following = await self.registry.listing(
            prefix, limit=min(limit or MAX_LISTING, MAX_LISTING), after=after
        )
        objects = []
        for entry in found:
            shown = asdict(entry.record)
            counts = {"complete": entry.complete, "partial": entry.partial, "superseded": entry.superseded}
            here = [h.place for h in self.holdings.named(entry.record.name) if h.digest == entry.record.manifest]
            objects.append({**shown, **counts, "here": here})
        return {"objects": objects, "next": following or None}

    async def info(self, name: str) -> dict[str, Any]:
        """Everything about one object, or a version of it. Raises as ``describe``, and ``BadName``."""
        self._origin.check()
        return await describe(self.parts, parse_reference(name))

    async def history(self, name: str) -> dict[str, Any]:
        """The versions of an object, the newest first, with tags and holders. Raises ``ObjectNotFound``."""
        self._origin.check()
        wanted = parse_reference(name)
        if not wanted.plain:
            raise UsageError(detail=f"{name!r} is one version; the history is that of {wanted.name!r}")
        found = await history(self.registry, wanted.name)
        if not found:
            raise await self.registry.missing(wanted.name)
        return {"name": wanted.name, "versions": found}

    async def watch(self, name: str, emit: Emit, *, initial: bool = False) -> None:
        """See ``p2pstore.cluster.watching``. Raises ``BadName``, too."""
        self._origin.check()
        await watch(self.registry.store, self.membership, parse_reference(name), emit, initial=initial)

    async def superseded(self) -> dict[str, Any]:
        """See ``p2pstore.info``."""
        self._origin.check()
        return await superseded(self.parts)

    async def unregister(self, name: str, *, delete: bool = False, last_copies: bool = False) -> dict[str, Any]:
        """Withdraw what this node has under ``name``, or of one version of it.

        Files stay, unless ``delete``: then those that this agent wrote go, and where it did not write all of them,
        nothing is changed. Raises ``NotHeld``, ``AmbiguousDigest`` or as ``describe``, and as ``Cache.delete``.
        ``removed`` says whether the name went with it: True, False, or None while the metadata server cannot be told;
        ``pending`` says why then. ``replaced_by`` is who gave the name to other content, which stays. ``tags`` lead to
        it, and nobody holds it any more.
        """
        self._origin.check()
        asked = parse_reference(name)
        wanted = await self._pinned(asked)
        mine = self._held(wanted)
        await self.parts.part_copies.forget_whole()
        part = None if mine else self.parts.part_copies.named(wanted.name)
        deleted: list[dict[str, Any]] = []
        if part is not None and wanted.fits(wanted.name, part[0].manifest):
            if delete:
                raise CopyStays(path=part[1], detail="it is a part of an object")
            digest = part[0].manifest
            removed = await self.parts.part_copies.withdraw(part[0])
            withdrawn = [{"role": "part", "path": str(part[1])}]
        elif not mine:
            raise await self._why_not_held(asked, wanted)
        else:
            digest = mine[0].digest
            if delete:
                removed, deleted = await delete_all(self.parts.cache, mine, last_copies=last_copies)
            else:
                removed = await self.parts.publisher.withdraw(mine)
            withdrawn = [{"role": h.role, "path": h.place} for h in mine]
        pending = self.parts.publisher.pending if removed is None else ""
        return {
            "name": wanted.name,
            "manifest": digest,
            "withdrawn": withdrawn,
            "deleted": deleted,
            "removed": removed,
            "pending": pending,
            "replaced_by": await self._replaced_by(wanted.name, digest) if removed is False else "",
            "tags": await stale_tags(self.registry, wanted.name, digest),
        }

    async def tag(self, name: str, tags: Sequence[str]) -> dict[str, Any]:
        """Have tags lead to what a reference means, from now on and for all nodes.

        Returns name, manifest, and for each tag where it led ``before``: a digest, or an empty text. Raises ``BadTag``
        and as ``describe``.
        """
        self._origin.check()
        wanted = parse_reference(name)
        new = [check_tag(tag) for tag in dict.fromkeys(tags)]
        record = await look_up(self.registry, wanted)
        if record is None:
            raise await unknown(self.registry, wanted)
        moved = await tag_version(self.registry, record, new, self.name)
        return {"name": record.name, "manifest": record.manifest, "tags": moved}

    async def tags(self, name: str) -> dict[str, Any]:
        """The tags of an object, or the one that is asked for, each with its version and how many hold that.

        Raises ``TagNotFound``, or ``ObjectNotFound`` where neither the object nor a tag of it is known.
        """
        self._origin.check()
        wanted = parse_reference(name)
        found = await tags_of(self.registry, wanted.name)
        shown = [each for each in found if wanted.tag in {"", each.tag} and wanted.fits(each.name, each.manifest)]
        if not shown and (wanted.tag or await look_up(self.registry, wanted) is None):
            raise await unknown(self.registry, wanted)
        return {"tags": await describe_tags(self.registry, shown)}

    async def untag(self, name: str) -> dict[str, Any]:
        """Remove a tag, ``NAME:TAG``; what it led to stays. Raises ``TagNotFound``, or ``UsageError`` without one."""
        self._origin.check()
        wanted = parse_reference(name)
        if not wanted.tag or wanted.digest:
            raise UsageError(detail=f"{name!r} names no tag; write NAME:TAG")
        try:
            removed = await remove_tag(self.registry, wanted.name, wanted.tag)
        except TagNotFound:
            raise await unknown(self.registry, wanted) from None
        return {"name": removed.name, "tag": removed.tag, "manifest": removed.manifest}

    async def _pinned(self, wanted: Reference) -> Reference:
        """The same by its digest, where it is by a tag. Raises as ``unknown``."""
        if wanted.plain or wanted.digest:
            return wanted
        record = await look_up(self.registry, wanted)
        if record is None:
            raise await unknown(self.registry, wanted)
        return Reference(wanted.name, record.manifest, wanted.tag)

    async def cache(self) -> dict[str, Any]:
        """Every copy that lies here, and the quota. See ``Cache.listing``."""
        self._origin.check()
        return await self.parts.cache.listing()

    async def pin(self, names: Sequence[str], *, pinned: bool) -> dict[str, Any]:
        """See ``Cache.pin``."""
        self._origin.check()
        return {"copies": await self.parts.cache.pin(names, pinned=pinned)}

    async def prune(self, request: PruneRequest, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """See ``p2pstore.holding.prune``."""
        self._origin.check()
        return await prune(self.parts.cache, request, progress)

    def _held(self, wanted: Reference) -> list[Holding]:
        """What this node has of what is meant. Raises ``AmbiguousDigest``."""
        mine = [holding for holding in self.holdings.named(wanted.name) if wanted.fits(holding.name, holding.digest)]
        if not wanted.plain:
            the_one(wanted, [holding.record for holding in mine])
        return mine

    async def _why_not_held(self, asked: Reference, wanted: Reference) -> MooncakeError:
        """Why this node has nothing of what was asked for, and is now ``wanted``."""
        if await look_up(self.registry, wanted) is None:
            return await unknown(self.registry, wanted)
        if wanted == asked:
            return NotHeld(name=str(asked))
        return VersionNotHeld(name=str(asked), digest=f"{ALGORITHM}:{wanted.digest[:SHOWN_DIGITS]}")

    async def verify(self, target: str, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Hash again what this node holds under a name or at an absolute path. What is wrong is withdrawn."""
        self._origin.check()
        if os.path.isabs(target):
            holding = self.holdings.at(Path(target)) or self.holdings.at(await asyncio.to_thread(_led_to, target))
            if holding is None:
                there = await asyncio.to_thread(os.path.lexists, target)
                raise NotHeld(name=target) if there else PathNotFound(path=target)
        else:
            asked = parse_reference(target)
            wanted = await self._pinned(asked)
            mine = self._held(wanted)
            if not mine:
                raise await self._why_not_held(asked, wanted)
            holding = mine[0]
        manifest = self.holdings.manifest(holding.digest)
        assert manifest is not None  # noqa: S101 - a holding has its manifest
        with self.parts.counts.verifies.one():
            result = await verify_holding(holding, manifest, progress)
        if not result["ok"]:
            log.warning("%s is withdrawn: %s has wrong bytes", holding.name, holding.place)
            await self.parts.publisher.give_up(holding, "it was verified, and has wrong bytes")
        result["replaced_by"] = await self._replaced_by(holding.name, holding.digest)
        result["superseded"] = bool(result["replaced_by"])
        return result

    async def _replaced_by(self, name: str, digest: str) -> str:
        """Who gave a name to other content than this meanwhile; empty where nobody did, or that is not known now."""
        try:
            record = await self.registry.find(name)
        except MooncakeError:
            return ""
        return record.creator if record is not None and record.manifest != digest else ""

    def status(self) -> dict[str, Any]:
        """What this node is and does."""
        self._origin.check()
        counts = self.parts.counts
        return {
            "node": self.name,
            "version": __version__,
            "metadata": self.registry.store.url,
            "metadata_ok": self.membership.ok,
            "metadata_fault": to_wire(self.membership.fault) if self.membership.fault else None,
            "control": self.record.control,
            "rpc": self.record.segment,
            "data": addresses.join(self.engine.host, self.engine.data_port),
            "listen": self.parts.options.host,
            "uptime": round(time.time() - self.record.started, 3),
            "objects": self.holdings.names,
            "cache_quota": self.parts.options.cache_quota,
            "serving_bytes": self.holdings.serving.whole_bytes,
            "bytes_sent": self.engine.bytes_sent,
            "bytes_granted": self.engine.bytes_granted,
            "bytes_pulled": sum(counts.pulled.values()),
            "bytes_reused": counts.reused,
            "receivers": counts.listens.started - counts.listens.ended,
            "peers": [{"node": peer, "bytes": count} for peer, count in reversed(counts.by_peer.items())],
            "rdma": self.record.rdma,
            "rdma_reason": self.engine.rdma_reason,
            "rdma_bytes_granted": self.engine.bytes_granted_rdma,
            "rdma_sessions": self.engine.rdma_sessions,
            "gets": self.gets.running,
            "gets_waiting": self.gets.waiting,
            "running_gets": self.gets.to_json(),
            "upload_limit": self.upload_limit.rate,
            "download_limit": self.download_limit.rate,
            "warnings": [*self.parts.doubts, *self.parts.watcher.slow],
            "tasks": [*self.supervisor.report(), *map(thread_report, self.engine.failures)],
        }


def _led_to(path: str) -> Path:
    """Where a path leads: what was registered by a link is held where it lies."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(path)
