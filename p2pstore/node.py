"""The node: everything that one member of the cluster does, whether an agent's process or a training job holds it.

It owns the parts that ``p2pstore.assembly`` makes, and offers the operations that the control plane and the Python API
call: register, get, list, info, unregister, verify, status. All of it runs on one event loop; what blocks runs in
threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.forks import Origin
from p2pstore.assembly import assemble, claim_name
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.tagging import list_tags, tag, untag
from p2pstore.cluster.watching import watch
from p2pstore.errors import MetadataFull, UsageError
from p2pstore.holding.content import Note
from p2pstore.holding.incoming import Incoming
from p2pstore.holding.part_watcher import PartWatcher
from p2pstore.holding.parts import Parts
from p2pstore.holding.prune import PruneRequest, prune
from p2pstore.holding.register import register, register_incoming, register_many, register_memory
from p2pstore.holding.unregister import unregister
from p2pstore.holding.verification import verify
from p2pstore.info.describe import describe
from p2pstore.info.listing import listing
from p2pstore.info.status import status
from p2pstore.info.versions import history, superseded
from p2pstore.metadata.store import MetadataStore
from p2pstore.node_options import NodeOptions
from p2pstore.objects.memory_objects import Buffers
from p2pstore.objects.names import check_object_name
from p2pstore.objects.reference import parse_reference
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
from p2pstore.supervisor import Supervisor


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
        """See ``p2pstore.info.listing``."""
        self._origin.check()
        return await listing(self.parts, prefix, limit=limit, after=after)

    async def info(self, name: str) -> dict[str, Any]:
        """Everything about one object, or a version of it. Raises as ``describe``, and ``BadName``."""
        self._origin.check()
        return await describe(self.parts, parse_reference(name))

    async def history(self, name: str) -> dict[str, Any]:
        """See ``p2pstore.info.versions``."""
        self._origin.check()
        return await history(self.parts, name)

    async def watch(self, name: str, emit: Emit, *, initial: bool = False) -> None:
        """See ``p2pstore.cluster.watching``. Raises ``BadName``, too."""
        self._origin.check()
        await watch(self.registry.store, self.membership, parse_reference(name), emit, initial=initial)

    async def superseded(self) -> dict[str, Any]:
        """See ``p2pstore.info.versions``."""
        self._origin.check()
        return await superseded(self.parts)

    async def unregister(self, name: str, *, delete: bool = False, last_copies: bool = False) -> dict[str, Any]:
        """See ``p2pstore.holding.unregister``."""
        self._origin.check()
        return await unregister(self.parts, name, delete=delete, last_copies=last_copies)

    async def tag(self, name: str, tags: Sequence[str]) -> dict[str, Any]:
        """See ``p2pstore.cluster.tagging``."""
        self._origin.check()
        return await tag(self.registry, name, tags, self.name)

    async def tags(self, name: str) -> dict[str, Any]:
        """See ``p2pstore.cluster.tagging.list_tags``."""
        self._origin.check()
        return await list_tags(self.registry, name)

    async def untag(self, name: str) -> dict[str, Any]:
        """See ``p2pstore.cluster.tagging``."""
        self._origin.check()
        return await untag(self.registry, name)

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

    async def verify(self, target: str, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """See ``p2pstore.holding.verification``."""
        self._origin.check()
        return await verify(self.parts, target, progress)

    def status(self) -> dict[str, Any]:
        """See ``p2pstore.info.status``."""
        self._origin.check()
        return status(self.parts, self.membership, self.gets, self.supervisor)
