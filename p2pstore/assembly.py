"""The parts of a node: made in the order in which they need one another, and ended in the opposite one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path

from engine._version import __version__
from engine.errors import MooncakeError, UsageError
from engine.net import addresses, sockets
from engine.net.listening import address_of
from engine.net.published import doubts, published
from engine.net.rate import RateLimit
from engine.net.within import within
from engine.protocol.key import new_key
from engine.serving.segment_server import SegmentServer
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.secret import cluster_secret
from p2pstore.cluster.wrong_bytes import WrongBytes
from p2pstore.errors import ListenRefused, NodeNameTaken
from p2pstore.holding.cache import Cache
from p2pstore.holding.catalog import Catalog
from p2pstore.holding.checker import Checker
from p2pstore.holding.eviction import Quota
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.oids import Oids
from p2pstore.holding.part_copies import PartCopies
from p2pstore.holding.part_table import PartTable
from p2pstore.holding.parts import Parts
from p2pstore.holding.publisher import Publisher
from p2pstore.holding.source_watcher import SourceWatcher
from p2pstore.metadata.store import MetadataStore
from p2pstore.metadata.urls import servers_of
from p2pstore.node_options import DEFAULT_PORT, PORTS, NodeOptions
from p2pstore.objects.names import check_node_name
from p2pstore.peers.peer_server import PeerServer
from p2pstore.supervisor import Supervisor

log = logging.getLogger(__name__)

NAMESAKE_SECONDS = 2.0
"""How long a node that had our name is waited for, before it counts as dead."""

CLOSE_SECONDS = 2.0
"""For telling the metadata server that this node leaves; its lease runs out all the same."""


async def assemble(
    options: NodeOptions, store: MetadataStore, supervisor: Supervisor, closing: contextlib.AsyncExitStack
) -> tuple[Parts, Membership]:
    """Make every part, and leave to ``closing`` how each is ended. Peers get answers from now on."""
    check_node_name(options.name)
    host = address_of(options.host)
    if options.secret is None and not options.insecure and sockets.is_exposed(host):
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
    closing.push_async_callback(holdings.save_notes)
    publisher = Publisher(registry, holdings, membership, supervisor)
    membership.on_rejoin.append(publisher.republish)
    checker = Checker(holdings, publisher.give_up, publisher.drop_partial)
    oids = Oids(holdings.serving.read, options.state / "oids" if options.state else None)
    closing.push_async_callback(oids.close)
    part_copies = PartCopies(publisher, holdings, PartTable(catalog), supervisor)
    quota = Quota(options.cache_quota, options.cache_high, options.cache_low) if options.cache_quota else None
    cache = Cache(holdings, publisher, part_copies, registry, client, quota=quota)
    parts = Parts(
        options=options,
        record=record,
        engine=engine,
        client=client,
        registry=registry,
        holdings=holdings,
        publisher=publisher,
        part_copies=part_copies,
        checker=checker,
        cache=cache,
        watcher=SourceWatcher(holdings, publisher.source_changed, checker.touched),
        wrong_bytes=WrongBytes(),
        oids=oids,
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


async def claim_name(parts: Parts) -> None:
    """Raise ``NodeNameTaken`` when another node of our name answers. A dead one's record is taken over."""
    record = parts.record
    before = (await parts.registry.nodes([record.node])).get(record.node)
    if before is None or before.control == record.control:
        return
    try:
        found = await within(parts.client.node(before.control), NAMESAKE_SECONDS)
    except (MooncakeError, asyncio.TimeoutError):
        return
    if found.node == record.node and found.started != record.started:
        raise NodeNameTaken(node=record.node, address=before.control)


async def _take_back_names(parts: Parts, membership: Membership) -> None:
    if membership.ok:
        with contextlib.suppress(MooncakeError, asyncio.TimeoutError):  # other nodes find such names in the end
            await within(parts.publisher.farewell(for_good=parts.options.state is None), CLOSE_SECONDS)


async def _leave(membership: Membership) -> None:
    with contextlib.suppress(MooncakeError, asyncio.TimeoutError):  # the lease runs out
        await within(membership.leave(), CLOSE_SECONDS)
