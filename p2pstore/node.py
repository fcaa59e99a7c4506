"""The node: everything that one member of the cluster does, whether an agent's process or a training job holds it.

It owns the parts and their order of starting and stopping, and offers the operations that the control plane and the
Python API call: register, get, list, info, unregister, verify, status. All of it runs on one event loop; what blocks
runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine._version import __version__
from engine.errors import MooncakeError, UsageError
from engine.forks import Origin
from engine.net import addresses, sockets
from engine.net.listening import address_of
from engine.net.published import doubts, published
from engine.net.rate import RateLimit
from engine.protocol.key import new_key
from engine.serving.segment_server import SegmentServer
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.secret import cluster_secret
from p2pstore.cluster.wrong_bytes import WrongBytes
from p2pstore.errors import ListenRefused, MetadataFull, NodeNameTaken, NotHeld, ObjectNotFound, PathNotFound, to_wire
from p2pstore.holding.catalog import Catalog
from p2pstore.holding.checker import Checker
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.parts import Parts
from p2pstore.holding.publisher import Publisher
from p2pstore.holding.register import Note, register, register_many, register_memory
from p2pstore.holding.source_watcher import SourceWatcher
from p2pstore.holding.verify import verify_holding
from p2pstore.info import describe
from p2pstore.metadata.store import MetadataStore
from p2pstore.metadata.urls import servers_of
from p2pstore.node_options import DEFAULT_PORT, PORTS, NodeOptions
from p2pstore.objects.memory_objects import Buffers
from p2pstore.objects.names import check_node_name, check_object_name
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.peers.peer_server import PeerServer
from p2pstore.pull.get import GetRequest, GetResult, get_files
from p2pstore.pull.memory_get import get_into
from p2pstore.pull.run import Emit
from p2pstore.pull.turn import GetQueue
from p2pstore.supervisor import Supervisor, thread_report

log = logging.getLogger(__name__)


MAX_LISTING = 1000
"""Objects in one page of a listing."""

NAMESAKE_SECONDS = 2.0
"""How long a node that had our name is waited for, before it counts as dead."""

CLOSE_SECONDS = 2.0
"""For telling the metadata server that this node leaves; its lease runs out all the same."""


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
        self.gets = GetQueue()
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
            parts, membership = await _assemble(options, store, supervisor, closing)
            await _claim_name(parts)
            await parts.holdings.restore()
            with contextlib.suppress(MetadataFull):  # it can get, and will be known when there is room
                await membership.join()
            node = cls(parts, membership, supervisor, closing.pop_all())
        supervisor.start("lease keeper", "node", membership.keep)
        supervisor.start("source watcher", "node", parts.watcher.watch)
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
        selection: Selection | None = None,
        steps: Steps | None = None,
        note: Note | None = None,
    ) -> dict[str, Any]:
        """See ``p2pstore.holding.register.register``."""
        self._origin.check()
        return await register(
            self.parts,
            path,
            name,
            hash_name=hash_name,
            chunk_size=chunk_size,
            force=force,
            selection=selection,
            steps=steps,
            note=note,
        )

    async def register_many(
        self,
        items: Sequence[tuple[Path, str]],
        *,
        hash_name: str,
        chunk_size: int = 0,
        force: bool = False,
        selection: Selection | None = None,
        progress: Callable[[int, int], None] | None = None,
        note: Note | None = None,
    ) -> dict[str, Any]:
        """See ``p2pstore.holding.register.register_many``."""
        self._origin.check()
        return await register_many(
            self.parts,
            items,
            hash_name=hash_name,
            chunk_size=chunk_size,
            force=force,
            selection=selection,
            progress=progress,
            note=note,
        )

    async def register_memory(
        self, name: str, buffers: Buffers, *, hash_name: str, chunk_size: int = 0, force: bool = False
    ) -> dict[str, Any]:
        """See ``p2pstore.holding.register.register_memory``."""
        self._origin.check()
        return await register_memory(self.parts, name, buffers, hash_name=hash_name, chunk_size=chunk_size, force=force)

    async def get(self, request: GetRequest, emit: Emit) -> GetResult:
        """See ``p2pstore.pull.get``."""
        self._origin.check()
        request = replace(request, peers=await self._controls(request.peers))
        if request.dry_run:
            return await get_files(self.parts, request, emit)
        async with self.gets.turn(_queued(request.name, emit)):
            return await get_files(self.parts, request, emit)

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
        async with self.gets.turn(_queued(name, emit)):
            return await get_into(self.parts, name, buffers, transport=transport, peers=controls, emit=emit)

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
            objects.append({**shown, "complete": entry.complete, "partial": entry.partial})
        return {"objects": objects, "next": following or None}

    async def info(self, name: str) -> dict[str, Any]:
        """Everything about one object. Raises ``ObjectNotFound``."""
        self._origin.check()
        return await describe(self.parts, check_object_name(name))

    async def unregister(self, name: str) -> dict[str, Any]:
        """Withdraw what this node has under ``name``. Raises ``NotHeld`` or ``ObjectNotFound``; deletes no file.

        ``removed`` says whether the name went with it: True, False, or None while the metadata server cannot be told;
        ``pending`` says why then. ``replaced_by`` is who gave the name to other content, which stays.
        """
        self._origin.check()
        mine = self.holdings.named(check_object_name(name))
        if not mine:
            if await self.registry.find(name) is None:
                raise ObjectNotFound(name=name)
            raise NotHeld(name=name)
        removed = await self.parts.publisher.withdraw(mine)
        withdrawn = [{"role": h.role, "path": h.place} for h in mine]
        pending = self.parts.publisher.pending if removed is None else ""
        return {
            "name": name,
            "manifest": mine[0].digest,
            "withdrawn": withdrawn,
            "removed": removed,
            "pending": pending,
            "replaced_by": await self._replaced_by(name, mine[0].digest) if removed is False else "",
        }

    async def verify(self, target: str, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Hash again what this node holds under a name or at an absolute path. What is wrong is withdrawn."""
        self._origin.check()
        if os.path.isabs(target):
            holding = self.holdings.at(Path(target)) or self.holdings.at(await asyncio.to_thread(_led_to, target))
            if holding is None:
                there = await asyncio.to_thread(os.path.lexists, target)
                raise NotHeld(name=target) if there else PathNotFound(path=target)
        else:
            mine = self.holdings.named(check_object_name(target))
            if not mine:
                known = await self.registry.find(target)
                raise NotHeld(name=target) if known else ObjectNotFound(name=target)
            holding = mine[0]
        manifest = self.holdings.manifest(holding.digest)
        assert manifest is not None  # noqa: S101 - a holding has its manifest
        result = await verify_holding(holding, manifest, progress)
        if not result["ok"]:
            log.warning("%s is withdrawn: %s has wrong bytes", holding.name, holding.place)
            await self.parts.publisher.give_up(holding, "it was verified, and has wrong bytes")
        result["replaced_by"] = await self._replaced_by(holding.name, holding.digest)
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
        replicas = self.holdings.replicas.values()
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
            "serving_bytes": sum(r.manifest.size for r in replicas if r.have.full),
            "bytes_sent": self.engine.bytes_sent,
            "rdma": self.record.rdma,
            "rdma_reason": self.engine.rdma_reason,
            "rdma_bytes_granted": self.engine.bytes_granted_rdma,
            "rdma_sessions": self.engine.rdma_sessions,
            "gets": self.gets.running,
            "gets_waiting": self.gets.waiting,
            "upload_limit": self.upload_limit.rate,
            "download_limit": self.download_limit.rate,
            "warnings": list(self.parts.doubts),
            "tasks": [*self.supervisor.report(), *map(thread_report, self.engine.failures)],
        }


def _queued(name: str, emit: Emit) -> Callable[[int], None]:
    """Tells the user of a get's place among those that wait."""

    def tell(before: int) -> None:
        ahead = f"{before} before it" if before else "it is the next"
        emit({"event": "note", "text": f"the get of {name!r} waits for its turn, as this node has many: {ahead}"})

    return tell


async def _assemble(
    options: NodeOptions, store: MetadataStore, supervisor: Supervisor, closing: contextlib.AsyncExitStack
) -> tuple[Parts, Membership]:
    """Make every part, and leave to ``closing`` how each is ended. Peers get answers from now on."""
    check_node_name(options.name)
    host = address_of(options.host)
    loopback = sockets.is_loopback(host)
    if not loopback and options.secret is None and not options.insecure:
        if not addresses.is_ip(host):
            sockets.listen(host, 0).close()  # a name that is none is another fault, which no secret mends
        raise ListenRefused(address=options.host)
    upload_limit = RateLimit(options.upload_limit)
    secret = cluster_secret(options.secret)
    servers = servers_of(store.url)
    told = address_of(options.advertise) if options.advertise else published(host, servers)
    doubtful = (*doubts(told, host, servers), *(secret.doubts() if secret is not None else ()))
    for doubt in doubtful:
        log.warning("%s", doubt)
    engine, listener = _on_free_ports(options, host, told, upload_limit)
    closing.callback(listener.close)
    if engine.rdma_reason:
        log.info("RDMA is not used: %s", engine.rdma_reason)
    closing.push_async_callback(asyncio.to_thread, engine.close)
    client = PeerClient(secret)
    closing.push_async_callback(client.close)
    catalog = Catalog(options.state / "catalog.db" if options.state else Path(":memory:"))
    closing.callback(catalog.close)
    record = _own_record(options, engine, listener.getsockname()[1])
    registry = Registry(store, options.name)
    membership = Membership(registry, record, options.ttl)

    holdings = Holdings(engine, catalog)
    closing.callback(holdings.close)
    publisher = Publisher(registry, holdings, membership, supervisor)
    membership.on_rejoin.append(publisher.republish)
    checker = Checker(holdings, publisher.give_up, publisher.drop_partial)
    parts = Parts(
        options=options,
        record=record,
        engine=engine,
        client=client,
        registry=registry,
        holdings=holdings,
        publisher=publisher,
        checker=checker,
        watcher=SourceWatcher(holdings, publisher.source_changed, checker.touched),
        wrong_bytes=WrongBytes(),
        upload_limit=upload_limit,
        download_limit=RateLimit(options.download_limit),
        doubts=doubtful,
    )
    server = PeerServer(parts, secret)
    closing.push_async_callback(server.close)
    await server.start(listener)
    closing.push_async_callback(_leave, membership)
    closing.push_async_callback(supervisor.close)
    closing.push_async_callback(_take_back_names, parts, membership)
    return parts, membership


def _on_free_ports(
    options: NodeOptions, host: str, told: str, upload_limit: RateLimit
) -> tuple[SegmentServer, socket.socket]:
    """The engine and the control plane's listener, on the first ports that are free together. Raises ``UsageError``."""
    first = options.port or (0 if sockets.is_loopback(host) else DEFAULT_PORT)
    if first > addresses.MAX_PORT - PORTS + 1:
        raise UsageError(detail=f"a node takes {PORTS} ports from {first} on, and {addresses.MAX_PORT} is the last")
    tried = range(first, max(first + 1, options.last_port - PORTS + 2), PORTS)
    for port in tried:
        try:
            return _on_ports(options, host, told, upload_limit, port)
        except UsageError as error:
            if len(tried) == 1:
                raise
            fault = error.fields.get("detail", error)
            log.debug("%s", fault)
    detail = f"no {PORTS} ports between {first} and {options.last_port} can be had together; the last answer: {fault}"
    raise UsageError(detail=detail)


def _on_ports(
    options: NodeOptions, host: str, told: str, upload_limit: RateLimit, port: int
) -> tuple[SegmentServer, socket.socket]:
    listener = sockets.listen(host, port)
    try:
        engine = SegmentServer(
            host,
            advertise=told,
            local_socket=options.local_socket,
            rpc_port=port + 1 if port else 0,
            data_port=port + 2 if port else 0,
            publish_buffers=options.secret is None,
            key="" if options.secret is None or options.insecure else new_key(),
            upload_limit=upload_limit,
            rdma=False if options.rdma_devices == "none" else options.rdma_devices,
        )
    except BaseException:
        listener.close()
        raise
    return engine, listener


def _own_record(options: NodeOptions, engine: SegmentServer, control_port: int) -> NodeRecord:
    me = engine.address_of_self()
    return NodeRecord(
        node=options.name,
        control=addresses.join(engine.host, control_port),
        segment=me.segment,
        data_port=me.data_port,
        host_id=me.host_id,
        local_socket=me.local_socket,
        zone=options.zone,
        version=__version__,
        started=time.time(),
        rdma=me.rdma,
    )


async def _claim_name(parts: Parts) -> None:
    """Raise ``NodeNameTaken`` when another node of our name answers. A dead one's record is taken over."""
    record = parts.record
    before = (await parts.registry.nodes([record.node])).get(record.node)
    if before is None or before.control == record.control:
        return
    try:
        found = await asyncio.wait_for(parts.client.node(before.control), NAMESAKE_SECONDS)
    except (MooncakeError, asyncio.TimeoutError):
        return
    if found.node == record.node and found.started != record.started:
        raise NodeNameTaken(node=record.node, address=before.control)


def _led_to(path: str) -> Path:
    """Where a path leads: what was registered by a link is held where it lies."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(path)


async def _take_back_names(parts: Parts, membership: Membership) -> None:
    if membership.ok:
        with contextlib.suppress(MooncakeError, asyncio.TimeoutError):  # other nodes find such names in the end
            await asyncio.wait_for(parts.publisher.farewell(for_good=parts.options.state is None), CLOSE_SECONDS)


async def _leave(membership: Membership) -> None:
    with contextlib.suppress(MooncakeError, asyncio.TimeoutError):  # the lease runs out
        await asyncio.wait_for(membership.leave(), CLOSE_SECONDS)
