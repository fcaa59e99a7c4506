"""The master's metrics under upstream's names, in the two text formats that Prometheus reads. Pure.

Dashboards made for upstream's master show ours. Upstream serves the text format 0.0.4 alone, and has names that
OpenMetrics does not allow for counters: there they are of unknown type, so that a name is the same in both formats.
Tiers and high availability that this master does not have show 0, and upstream's ``ha_*`` are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from p2pstore.kv.pool.stats import SIZE_BOUNDS
from p2pstore.objects.units import format_size

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

SINGLE = {
    "PutStart": "put_start",
    "PutEnd": "put_end",
    "PutRevoke": "put_revoke",
    "GetReplicaList": "get_replica_list",
    "GetReplicaListByRegex": "get_replica_list_by_regex",
    "ExistKey": "exist_key",
    "Remove": "remove",
    "RemoveByRegex": "remove_by_regex",
    "RemoveAll": "remove_all",
    "MountSegment": "mount_segment",
    "UnmountSegment": "unmount_segment",
    "ReMountSegment": "remount_segment",
    "MountNoFSegment": "mount_nof_segment",
    "UnmountNoFSegment": "unmount_nof_segment",
    "ReMountNoFSegment": "remount_nof_segment",
    "Ping": "ping",
    "CopyStart": "copy_start",
    "CopyEnd": "copy_end",
    "CopyRevoke": "copy_revoke",
    "MoveStart": "move_start",
    "MoveEnd": "move_end",
    "MoveRevoke": "move_revoke",
    "EvictDiskReplica": "evict_disk_replica",
    "CreateCopyTask": "create_copy_task",
    "CreateMoveTask": "create_move_task",
    "QueryTask": "query_task",
    "FetchTasks": "fetch_tasks",
    "MarkTaskToComplete": "update_task",
}
"""Calls, and what upstream's metrics of them are named after."""

BATCH = {
    "BatchExistKey": "batch_exist_key",
    "BatchQueryIp": "batch_query_ip",
    "BatchReplicaClear": "batch_replica_clear",
    "BatchGetReplicaList": "batch_get_replica_list",
    "BatchPutStart": "batch_put_start",
    "BatchPutEnd": "batch_put_end",
    "BatchPutRevoke": "batch_put_revoke",
}
"""Calls of several keys, likewise."""

ALSO = {
    "UpsertStart": "PutStart",
    "UpsertEnd": "PutEnd",
    "UpsertRevoke": "PutRevoke",
    "BatchUpsertStart": "BatchPutStart",
    "BatchUpsertEnd": "BatchPutEnd",
    "BatchUpsertRevoke": "BatchPutRevoke",
    "GracefulUnmountSegment": "UnmountSegment",
}
"""Calls that are counted with another."""

GAUGES = {
    "master_allocated_bytes": "Bytes of all mounted memory that values take",
    "master_total_capacity_bytes": "Bytes of all mounted memory",
    "master_nof_allocated_bytes": "Bytes that values take on NVMe over Fabrics",
    "master_total_nof_capacity_bytes": "Bytes of all mounted NVMe over Fabrics",
    "master_allocated_file_size_bytes": "Bytes that values take in files",
    "master_total_file_capacity_bytes": "Bytes that there are for values in files",
    "master_key_count": "Keys in the index",
    "master_soft_pin_key_count": "Keys that are soft-pinned",
    "master_active_clients": "Clients that ping",
    "mem_cache_nums_": "Values in memory",
    "file_cache_nums_": "Values in files",
    "master_put_start_discarded_staging_size": "Bytes of discarded puts that are not free again yet",
    "master_promotion_in_flight": "Values on their way from disk to memory",
}

COUNTERS = {
    "master_put_start_alloc_failures_total": "Puts that found no room",
    "master_put_start_partial_allocations_total": "Puts that got fewer replicas than they asked for",
    "master_nof_heartbeat_success_total": "Probes of NVMe over Fabrics that were answered",
    "master_nof_heartbeat_failure_total": "Probes of NVMe over Fabrics that failed",
    "master_nof_heartbeat_timeout_total": "Probes of NVMe over Fabrics that took too long",
    "master_nof_segments_unmounted_by_heartbeat_total": "Segments on NVMe over Fabrics given up after probes",
    "mem_cache_hit_nums_": "Reads that were sent to memory",
    "file_cache_hit_nums_": "Reads that were sent to a file",
    "mem_cache_hit_bytes_total": "Bytes of reads that were sent to memory",
    "file_cache_hit_bytes_total": "Bytes of reads that were sent to a file",
    "valid_get_nums_": "Reads that found a whole value",
    "total_get_nums_": "Reads",
    "master_successful_evictions_total": "Evictions that freed something",
    "master_attempted_evictions_total": "Evictions that were tried",
    "master_evicted_key_count": "Keys that were evicted",
    "master_evicted_size_bytes": "Bytes that were evicted",
    "master_successful_evictions_mem": "Evictions from memory that freed something",
    "master_attempted_evictions_mem": "Evictions from memory that were tried",
    "master_evicted_key_count_mem": "Keys that were evicted from memory",
    "master_evicted_size_bytes_mem": "Bytes that were evicted from memory",
    "master_successful_evictions_nof": "Evictions from NVMe over Fabrics that freed something",
    "master_attempted_evictions_nof": "Evictions from NVMe over Fabrics that were tried",
    "master_evicted_key_count_nof": "Keys that were evicted from NVMe over Fabrics",
    "master_evicted_size_bytes_nof": "Bytes that were evicted from NVMe over Fabrics",
    "master_put_start_discard_cnt": "Puts that were discarded, since they did not end in time",
    "master_put_start_release_cnt": "Discarded puts whose room is free again",
    "master_promotion_admitted_total": "Promotions from disk to memory that were begun",
    "master_promotion_completed_total": "Promotions that ended well",
    "master_promotion_completed_bytes_total": "Bytes that were promoted",
    "master_promotion_expired_total": "Promotions that did not end in time",
    "master_promotion_failed_total": "Promotions that their client gave up",
    "master_promotion_cancelled_total": "Promotions whose value went away",
    "master_promotion_rejected_frequency_total": "Promotions not begun, for too few reads",
    "master_promotion_rejected_watermark_total": "Promotions not begun, for want of memory",
    "master_promotion_rejected_cap_total": "Promotions not begun, for there were too many",
    "master_promotion_candidate_recorded_total": "Promotions put off",
    "master_promotion_candidate_admitted_total": "Promotions put off and begun later",
    "master_promotion_candidate_admission_rejected_total": "Promotions put off and put off again",
    "master_promotion_candidate_expired_evaluated_total": "Promotions put off and given up",
    "master_promotion_candidate_expired_unevaluated_total": "Promotions put off and never looked at again",
    "master_promotion_candidate_dropped_limit_total": "Promotions not put off, for there were too many",
    "master_snapshot_success": "Snapshots of the index that were written",
    "master_snapshot_fail": "Snapshots of the index that could not be written",
}


class Segment(NamedTuple):
    """What of one segment is used, in bytes."""

    name: str
    used: int
    size: int


@dataclass(frozen=True)
class Readings:
    """What the metrics are made of.

    ``numbers`` has the gauges and counters, by upstream's name without ``master_`` in front, and without ``_total`` or
    ``_`` at the end; what is missing is 0. ``calls`` has for each call how many there were, failed, were right in part,
    how many items they had, and how many of those failed. ``value_sizes`` counts values by ``SIZE_BOUNDS``, the last
    the larger ones; ``value_bytes`` is their sum. ``callers`` counts the connected clients of each version, and
    ``unknown`` the calls that nobody here knows.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    calls: Mapping[str, Sequence[int]] = field(default_factory=dict)
    segments: Sequence[Segment] = ()
    value_sizes: Sequence[int] = (0,) * (len(SIZE_BOUNDS) + 1)
    value_bytes: int = 0
    callers: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)

    def number(self, metric: str) -> float:
        """The value of one of ``GAUGES`` or ``COUNTERS``."""
        return self.numbers.get(_short(metric), 0)

    def counts(self, call: str) -> list[int]:
        """The five counts of a call, those of ``ALSO`` among them."""
        total = [0, 0, 0, 0, 0]
        for name in (call, *(other for other, main in ALSO.items() if main == call)):
            total = [a + b for a, b in zip(total, self.calls.get(name, (0,) * 5), strict=True)]
        return total


class Sample(NamedTuple):
    """One line: what stands behind the family's name, the labels, the value."""

    suffix: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(NamedTuple):
    """One metric: ``kind`` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def families(readings: Readings) -> Iterator[Family]:
    """Every metric, upstream's first, then two of our own."""
    for name, text in GAUGES.items():
        yield _plain(name, "gauge", text, readings.number(name))
    for name, text in COUNTERS.items():
        yield _plain(name, "counter", text, readings.number(name))
    for calls in (SINGLE, BATCH):
        for call, word in calls.items():
            yield from _of_call(call, word, readings.counts(call), batch=calls is BATCH)
    yield from _of_segments(readings.segments)
    yield _histogram("master_value_size_bytes", "Sizes of values that were put", readings)
    yield _labelled(
        "mooncake_store_callers", "gauge", "Connected clients by version", "version", readings.callers.items()
    )
    yield _labelled(
        "mooncake_store_unknown_calls_total", "counter", "Calls that are not known here", "call",
        readings.unknown.items(),
    )  # fmt: skip


def render(found: Iterable[Family], *, openmetrics: bool = False) -> str:
    """The metrics as text: the format 0.0.4, or OpenMetrics 1.0."""
    lines = []
    for family in found:
        name, kind = family.name, family.kind
        if openmetrics and kind == "counter":
            name, kind = (name.removesuffix("_total"), kind) if name.endswith("_total") else (name, "unknown")
        lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {kind}"]
        for sample in family.samples:
            labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in sample.labels)
            lines.append(f"{family.name}{sample.suffix}{{{labels}}} {_number(sample.value)}" if labels else
                         f"{family.name}{sample.suffix} {_number(sample.value)}")  # fmt: skip
    return "\n".join([*lines, "# EOF"] if openmetrics else lines) + "\n"


def summary(readings: Readings) -> str:
    """One line for people, in the manner of upstream's."""
    used, size = int(readings.number("master_allocated_bytes")), int(readings.number("master_total_capacity_bytes"))
    share = f" ({100 * used / size:.1f}%)" if size else ""
    keys, pinned = int(readings.number("master_key_count")), int(readings.number("master_soft_pin_key_count"))
    evicted = int(readings.number("master_evicted_size_bytes"))
    parts = [
        f"Mem Storage: {format_size(used)} / {format_size(size)}{share}",
        f"Keys: {keys} (soft-pinned: {pinned})",
        f"Clients: {int(readings.number('master_active_clients'))}",
        "Requests (Success/Total): " + ", ".join(_shares(readings)),
        f"Eviction: keys={int(readings.number('master_evicted_key_count'))}, size={format_size(evicted)}",
        f"Discard: {int(readings.number('master_put_start_discard_cnt'))}",
    ]
    if readings.unknown:
        parts.append(f"Unknown calls: {sum(readings.unknown.values())}")
    return " | ".join(parts)


def _shares(readings: Readings) -> Iterator[str]:
    for call in ("PutStart", "PutEnd", "PutRevoke", "GetReplicaList", "ExistKey", "Remove", "RemoveAll", "Ping"):
        requests, failures, *_ = readings.counts(call)
        yield f"{call}={requests - failures}/{requests}"
    for call in BATCH:
        requests, failures, _, items, failed_items = readings.counts(call)
        yield f"{call}={requests - failures}/{requests} ({items - failed_items}/{items} items)"


def _short(metric: str) -> str:
    return metric.removeprefix("master_").removesuffix("_total").removesuffix("_")


def _plain(name: str, kind: str, text: str, value: float) -> Family:
    return Family(name, kind, text, (Sample("", (), value),))


def _labelled(name: str, kind: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Family:
    return Family(name, kind, text, tuple(Sample("", ((label, each),), value) for each, value in sorted(values)))


def _of_call(call: str, word: str, counts: Sequence[int], *, batch: bool) -> Iterator[Family]:
    requests, failures, partial, items, failed_items = counts
    yield _plain(f"master_{word}_requests_total", "counter", f"{call} calls", requests)
    yield _plain(f"master_{word}_failures_total", "counter", f"{call} calls that failed", failures)
    if batch:
        yield _plain(f"master_{word}_partial_successes_total", "counter", f"{call} calls that failed in part", partial)
        yield _plain(f"master_{word}_items_total", "counter", f"Items of {call} calls", items)
        yield _plain(f"master_{word}_failed_items_total", "counter", f"Items of {call} that failed", failed_items)


def _of_segments(segments: Sequence[Segment]) -> Iterator[Family]:
    used: dict[str, int] = {}
    size: dict[str, int] = {}
    for segment in segments:  # a client that gives more than one range has several of one name
        used[segment.name] = used.get(segment.name, 0) + segment.used
        size[segment.name] = size.get(segment.name, 0) + segment.size
    for name, text, values in (
        ("segment_allocated_bytes", "Bytes of the segment that values take", used),
        ("segment_total_capacity_bytes", "Bytes of the segment", size),
    ):
        yield _labelled(name, "gauge", text, "segment", values.items())


def _histogram(name: str, text: str, readings: Readings) -> Family:
    samples, below = [], 0
    for bound, count in zip((*SIZE_BOUNDS, None), readings.value_sizes, strict=True):
        below += count
        samples.append(Sample("_bucket", (("le", "+Inf" if bound is None else f"{bound:.1f}"),), below))
    samples += [Sample("_sum", (), readings.value_bytes), Sample("_count", (), below)]
    return Family(name, "histogram", text, tuple(samples))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
