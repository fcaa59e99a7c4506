"""Register and get for memory: the two operations of a node that no command line can ask for."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from p2pstore.cluster.manifests import first_that_answers
from p2pstore.errors import NoLivePeer
from p2pstore.holding.parts import Parts
from p2pstore.objects.memory_objects import Buffers, named
from p2pstore.objects.names import check_object_name
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.resolve import resolve
from p2pstore.pull.reuse import copy_local
from p2pstore.pull.run import PullWork


async def get_into(
    parts: Parts, name: str, buffers: Buffers, *, transport: str, peers: tuple[str, ...]
) -> dict[str, Any]:
    """Pull an object into buffers, in place. Raises as a get, and ``UsageError`` where the buffers do not fit."""
    began = time.monotonic()
    check_object_name(name)
    resolved = await resolve(parts.registry, parts.client, name, peers)
    digest = resolved.record.manifest
    manifest = parts.holdings.manifest(digest)
    if manifest is None:
        if not resolved.controls:
            raise NoLivePeer(name=name, detail="nobody who is alive holds it")
        manifest = await first_that_answers(parts.client, resolved.controls, digest, _ignore)
    destination = MemoryDestination(manifest, named(buffers))
    cancelled = threading.Event()
    await asyncio.to_thread(copy_local, parts.holdings, destination, cancelled, _ignore)
    reused = sum(manifest.chunk(c).length for c in destination.verified)
    work = PullWork(parts, resolved, name, transport, _ignore)
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
