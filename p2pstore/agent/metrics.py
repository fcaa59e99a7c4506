"""The metrics of an agent: one table, which the code reads, and of which docs/metrics.md is made.

None has a label for each object or peer, and none is found out by looking at all of them: an agent with ten thousand
objects answers as fast as one with ten.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

from engine._version import __version__
from p2pstore.metrics.metric import Kind, Metric
from p2pstore.node import Node
from p2pstore.settings.keys import TRANSPORTS

PREFIX = "mooncake_agent_"


def _pulled(node: Node) -> dict[tuple[str, ...], float]:
    return {(name,): node.parts.counts.pulled[name] for name in TRANSPORTS["auto"]}


def _granted(node: Node) -> dict[tuple[str, ...], float]:
    return {("local",): node.engine.bytes_granted, ("rdma",): node.engine.bytes_granted_rdma}


def _replicas(node: Node) -> dict[tuple[str, ...], float]:
    serving = node.holdings.serving
    return {("complete",): serving.whole, ("partial",): serving.partial}


def _failures(node: Node) -> float:
    tasks = sum(int(task["failures"]) for task in node.supervisor.report())
    return tasks + sum(failure.count for failure in node.engine.failures)


METRICS: Sequence[Metric[Node]] = (
    Metric(
        PREFIX + "build",
        Kind.INFO,
        "Versions of this agent and of its Python",
        lambda _: {(__version__, platform.python_version()): 1},
        ("version", "python"),
    ),
    Metric(PREFIX + "objects", Kind.GAUGE, "Names of objects that this node holds whole", lambda n: n.holdings.names),
    Metric(
        PREFIX + "contents",
        Kind.GAUGE,
        "Contents that are served to peers, whole or in part; two names may have one content",
        _replicas,
        ("state",),
    ),
    Metric(
        PREFIX + "held_bytes",
        Kind.GAUGE,
        "Bytes of the contents that this node holds whole, each once",
        lambda n: n.holdings.serving.whole_bytes,
    ),
    Metric(
        PREFIX + "given_up",
        Kind.COUNTER,
        "Holdings that are served no more, since their files changed or their bytes were wrong",
        lambda n: n.holdings.given_up,
    ),
    Metric(PREFIX + "evicted_copies", Kind.COUNTER, "Copies that the quota took", lambda n: n.parts.cache.evicted),
    Metric(
        PREFIX + "deleted_bytes",
        Kind.COUNTER,
        "Bytes of copies that were deleted, by the quota or because somebody asked for it",
        lambda n: n.parts.cache.deleted_bytes,
    ),
    Metric(
        PREFIX + "cache_quota_bytes",
        Kind.GAUGE,
        "What replicas may take; 0 for no limit",
        lambda n: n.parts.options.cache_quota,
    ),
    Metric(PREFIX + "gets_started", Kind.COUNTER, "Gets that began", lambda n: n.parts.counts.gets.started),
    Metric(
        PREFIX + "gets_finished",
        Kind.COUNTER,
        "Gets that ended: ok, failed or cancelled",
        lambda n: n.parts.counts.gets.finished,
        ("outcome",),
    ),
    Metric(PREFIX + "gets_running", Kind.GAUGE, "Gets that have their turn", lambda n: n.gets.running),
    Metric(PREFIX + "gets_waiting", Kind.GAUGE, "Gets that wait for their turn", lambda n: n.gets.waiting),
    Metric(
        PREFIX + "get_duration_seconds",
        Kind.HISTOGRAM,
        "Of gets that ended well, their waiting included",
        lambda n: n.parts.counts.gets.seconds,
    ),
    Metric(
        PREFIX + "pulled_bytes",
        Kind.COUNTER,
        "Verified bytes that came from peers, by transport",
        _pulled,
        ("transport",),
    ),
    Metric(
        PREFIX + "reused_bytes",
        Kind.COUNTER,
        "Bytes of gets that did not have to move: they were here already",
        lambda n: n.parts.counts.reused,
    ),
    Metric(
        PREFIX + "wrong_chunks",
        Kind.COUNTER,
        "Chunks of wrong bytes that peers sent; none of them was kept",
        lambda n: n.parts.wrong_bytes.count,
    ),
    Metric(PREFIX + "sent_bytes", Kind.COUNTER, "Bytes sent to peers over TCP", lambda n: n.engine.bytes_sent),
    Metric(
        PREFIX + "granted_bytes",
        Kind.COUNTER,
        "Bytes that peers were allowed to read by themselves: by descriptor on this host, or over RDMA",
        _granted,
        ("transport",),
    ),
    Metric(
        PREFIX + "data_connections", Kind.GAUGE, "TCP connections of peers that read", lambda n: n.engine.connections
    ),
    Metric(
        PREFIX + "receivers",
        Kind.GAUGE,
        "Peers that get something from this node, or wait for it",
        lambda n: n.parts.counts.listens.started - n.parts.counts.listens.ended,
    ),
    Metric(PREFIX + "rdma_sessions", Kind.GAUGE, "Peers that read over RDMA", lambda n: n.engine.rdma_sessions),
    Metric(
        PREFIX + "peer_requests_started",
        Kind.COUNTER,
        "Requests of peers to the control port that were let in",
        lambda n: n.parts.counts.peer_requests.started,
    ),
    Metric(
        PREFIX + "peer_requests_finished",
        Kind.COUNTER,
        "Those that ended; a peer that gets something keeps one open",
        lambda n: n.parts.counts.peer_requests.ended,
    ),
    Metric(
        PREFIX + "registers_started",
        Kind.COUNTER,
        "Registers that began; one may have many paths",
        lambda n: n.parts.counts.registers.started,
    ),
    Metric(
        PREFIX + "registers_finished",
        Kind.COUNTER,
        "Registers that ended: ok, failed or cancelled",
        lambda n: n.parts.counts.registers.finished,
        ("outcome",),
    ),
    Metric(
        PREFIX + "registered_objects",
        Kind.COUNTER,
        "Objects that registers published",
        lambda n: n.parts.counts.registered,
    ),
    Metric(
        PREFIX + "verifies_started",
        Kind.COUNTER,
        "Verifies of what this node holds that began",
        lambda n: n.parts.counts.verifies.started,
    ),
    Metric(
        PREFIX + "verifies_finished",
        Kind.COUNTER,
        "Verifies that ended: ok (whatever they found), failed or cancelled",
        lambda n: n.parts.counts.verifies.finished,
        ("outcome",),
    ),
    Metric(
        PREFIX + "metadata_up",
        Kind.GAUGE,
        "Whether the metadata server knows this node: 1 or 0",
        lambda n: float(n.membership.ok),
    ),
    Metric(
        PREFIX + "upload_limit_bytes_per_second",
        Kind.GAUGE,
        "What may be sent to peers; 0 for no limit",
        lambda n: n.upload_limit.rate,
    ),
    Metric(
        PREFIX + "download_limit_bytes_per_second",
        Kind.GAUGE,
        "What gets may receive; 0 for no limit",
        lambda n: n.download_limit.rate,
    ),
    Metric(
        PREFIX + "task_failures",
        Kind.COUNTER,
        "Failures of background tasks and threads; 'mooncake node status' names them",
        _failures,
    ),
)
