"""What a node is and does at this moment, read from its parts: it asks nobody and waits for nothing."""

from __future__ import annotations

import time
from typing import Any

from engine._version import __version__
from engine.net import addresses
from p2pstore.cluster.membership import Membership
from p2pstore.errors import to_wire
from p2pstore.holding.parts import Parts
from p2pstore.pull.running import Gets
from p2pstore.supervisor import Supervisor, thread_report


def status(parts: Parts, membership: Membership, gets: Gets, supervisor: Supervisor) -> dict[str, Any]:
    """What ``node status`` shows: names and addresses, what it holds and has moved, and what failed in it.

    Sizes are bytes, limits bytes a second, 0 for none, and ``uptime`` seconds.
    """
    counts, engine, record = parts.counts, parts.engine, parts.record
    return {
        "node": parts.name,
        "version": __version__,
        "metadata": parts.registry.store.url,
        "metadata_ok": membership.ok,
        "metadata_fault": to_wire(membership.fault) if membership.fault else None,
        "control": record.control,
        "rpc": record.segment,
        "data": addresses.join(engine.host, engine.data_port),
        "listen": parts.options.host,
        "uptime": round(time.time() - record.started, 3),
        "objects": parts.holdings.names,
        "cache_quota": parts.options.cache_quota,
        "serving_bytes": parts.holdings.serving.whole_bytes,
        "bytes_sent": engine.bytes_sent,
        "bytes_granted": engine.bytes_granted,
        "bytes_pulled": sum(counts.pulled.values()),
        "bytes_reused": counts.reused,
        "receivers": counts.listens.started - counts.listens.ended,
        "peers": [{"node": peer, "bytes": count} for peer, count in reversed(counts.by_peer.items())],
        "rdma": record.rdma,
        "rdma_reason": engine.rdma_reason,
        "rdma_bytes_granted": engine.bytes_granted_rdma,
        "rdma_sessions": engine.rdma_sessions,
        "gets": gets.running,
        "gets_waiting": gets.waiting,
        "running_gets": gets.to_json(),
        "upload_limit": parts.upload_limit.rate,
        "download_limit": parts.download_limit.rate,
        "warnings": [*parts.doubts, *parts.watcher.slow],
        "tasks": [*supervisor.report(), *map(thread_report, engine.failures)],
    }
