"""Register and get for memory: the two operations of a node that no command line can ask for."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from p2pstore.cluster.registry import registered
from p2pstore.errors import NoLivePeer
from p2pstore.holding.catalog import Holding
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Buffers, hash_views, named, views_of
from p2pstore.objects.names import check_object_name
from p2pstore.pull.discovery import first_that_answers
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.resolve import resolve
from p2pstore.pull.reuse import copy_local
from p2pstore.pull.run import PullWork

if TYPE_CHECKING:
    from p2pstore.node import Node


async def register_memory(
    node: Node, name: str, buffers: Buffers, *, hash_name: str, chunk_size: int, force: bool
) -> dict[str, Any]:
    """Hash and serve buffers in place under ``name``. Raises ``BadName``, ``UsageError``, ``ObjectExists``."""
    began = time.monotonic()
    check_object_name(name)
    views = views_of(named(buffers))
    kind = "file" if set(views) == {""} else "directory"
    cancelled = threading.Event()

    def work() -> Manifest:
        threads = os.cpu_count() or 1
        return hash_views(
            views, kind=kind, hash_name=hash_name, chunk_size=chunk_size, threads=threads, cancelled=cancelled
        )

    try:
        manifest = await asyncio.to_thread(work)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    lease = node.registry.lease
    record = await node.publish(name, manifest, force=force)
    await node.replace([(Holding(record, "gold", None, (), tuple(views.values())), manifest)], lease)
    return {**registered(record, manifest), "seconds": round(time.monotonic() - began, 6)}


async def get_into(
    node: Node, name: str, buffers: Buffers, *, transport: str, peers: tuple[str, ...]
) -> dict[str, Any]:
    """Pull an object into buffers, in place. Raises as a get, and ``UsageError`` where the buffers do not fit."""
    began = time.monotonic()
    check_object_name(name)
    resolved = await resolve(node, name, peers)
    digest = resolved.record.manifest
    manifest = node.holdings.manifest(digest)
    if manifest is None:
        if not resolved.controls:
            raise NoLivePeer(name=name, detail="nobody who is alive holds it")
        manifest = await first_that_answers(node.client, resolved.controls, digest, _ignore)
    destination = MemoryDestination(manifest, named(buffers))
    cancelled = threading.Event()
    await asyncio.to_thread(copy_local, node.holdings, destination, cancelled, _ignore)
    reused = sum(manifest.chunk(c).length for c in destination.verified)
    work = PullWork(node, resolved, name, transport, _ignore)
    if not destination.verified.full:
        await work.run(destination, _ignore, seeds=False)
    pulled = work.pull.bytes_pulled if manifest.size > reused else 0
    return {
        "name": name,
        "manifest": digest,
        "size": manifest.size,
        "bytes_pulled": pulled,
        "bytes_reused": reused,
        "seconds": round(time.monotonic() - began, 6),
        "transport": ",".join(sorted(work.pull.bytes_by_transport)) if pulled else "",
        "peers": dict(work.pull.bytes_by_node) if pulled else {},
    }


def _ignore(_: object) -> None:
    """Nobody is told: the caller waits for the result."""
