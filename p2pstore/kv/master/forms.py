"""The admin surface's answers as JSON has them: upstream's forms, and ours. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.rpc.codes import Code
from engine.rpc.messages import Disk, LocalDisk, Memory, Nof, Replica, SegmentStatus
from p2pstore.kv.master.dispatch import SEGMENT_STATUS
from p2pstore.kv.master.facts import CallerFacts
from p2pstore.kv.pool.drain import JobInfo
from p2pstore.kv.pool.entries import TenantUse
from p2pstore.kv.pool.segments import SegmentInfo

NAMES = {
    Code.INTERNAL: "INTERNAL_ERROR",
    Code.NO_SEGMENT: "SEGMENT_NOT_FOUND",
    Code.BAD_KEY: "INVALID_KEY",
    Code.BAD_PARAMS: "INVALID_PARAMS",
    Code.NOT_READY: "REPLICA_IS_NOT_READY",
    Code.NOT_FOUND: "OBJECT_NOT_FOUND",
    Code.LEASED: "OBJECT_HAS_LEASE",
    Code.HAS_TASK: "OBJECT_HAS_REPLICATION_TASK",
    Code.BUSY: "OBJECT_REPLICA_BUSY",
    Code.BAD_MODE: "UNAVAILABLE_IN_CURRENT_MODE",
    Code.BAD_STATUS: "UNAVAILABLE_IN_CURRENT_STATUS",
    Code.NO_JOB: "JOB_NOT_FOUND",
    Code.NO_TENANT: "TENANT_NOT_REGISTERED",
}
"""Upstream's names of the codes that are answered here."""


MAX_DIGITS = 20
"""Of a half of an id."""


class KeyShown(NamedTuple):
    """One key in a list."""

    key: str
    tenant: str
    size: int
    replicas: int
    complete: bool


def id_text(number: bytes) -> str:
    """An id as upstream writes it: its two halves in decimal."""
    return f"{int.from_bytes(number[:8], 'little')}-{int.from_bytes(number[8:], 'little')}"


def buffer(place: Memory | Nof) -> dict[str, Any]:
    """One place, as upstream tells it."""
    size, address, protocol, endpoint = place
    return {"size_": size, "buffer_address_": address, "protocol_": protocol, "transport_endpoint_": endpoint}


def id_of(text: str) -> bytes | None:
    """The other way round; None for what is none."""
    halves = text.split("-")
    if len(halves) != 2 or not all(half.isascii() and half.isdecimal() and len(half) <= MAX_DIGITS for half in halves):
        return None
    numbers = [int(half) for half in halves]
    return b"".join(number.to_bytes(8, "little") for number in numbers) if max(numbers) < 1 << 64 else None


def in_batch(found: Sequence[Replica] | Code) -> dict[str, Any]:
    """What upstream says of one key among several."""
    names = ("error", "values", "disk_values", "local_disk_values", "nof_values")
    answer: dict[str, Any] = dict.fromkeys(names)
    if isinstance(found, Code):
        return {"ok": False, **answer, "error": NAMES.get(found, found.name)}
    places = [replica.place for replica in found]
    answer["values"] = [buffer(place) for place in places if isinstance(place, Memory)]
    answer["nof_values"] = [buffer(place) for place in places if isinstance(place, Nof)] or None
    answer["disk_values"] = [
        {"file_path": place.path, "object_size": place.size} for place in places if isinstance(place, Disk)
    ] or None
    answer["local_disk_values"] = [
        {"client_id": id_text(place.client), "object_size": place.size, "transport_endpoint": place.endpoint}
        for place in places
        if isinstance(place, LocalDisk)
    ] or None
    return {"ok": True, **answer}


def replica(it: Replica) -> dict[str, Any]:
    """One replica, by the names of its place's fields."""
    place = it.place
    fields = place._asdict()
    if isinstance(place, LocalDisk):
        fields["client"] = id_text(place.client)
    return {"id": it.id, "kind": type(place).__name__.lower(), "status": int(it.status), **fields}


def tenant_quota(it: TenantUse, capacity: int) -> dict[str, Any]:
    """What a tenant takes and may take, as upstream tells it; who has no quota may take all there is."""
    allowed = capacity if it.quota is None else min(it.quota, capacity)
    return {
        "tenant_id": it.name,
        "requested_quota_bytes": it.quota or 0,
        "effective_quota_bytes": allowed,
        "charged_bytes": it.used,
        "admission_closed": False,
        "over_quota": it.quota is not None and it.used > allowed,
        "has_explicit_policy": it.quota is not None,
    }


def drain_job(it: JobInfo) -> dict[str, Any]:
    """A job, as upstream tells it."""
    return {
        "success": True,
        "job_id": id_text(it.id),
        "type": 0,
        "type_name": "DRAIN",
        "status": int(it.status),
        "status_name": it.status.name,
        "created_at_ms_epoch": it.created_ms,
        "last_updated_at_ms_epoch": it.updated_ms,
        "segments": list(it.segments),
        "succeeded_units": it.succeeded,
        "failed_units": it.failed,
        "blocked_units": it.blocked,
        "active_units": it.active,
        "migrated_bytes": it.moved_bytes,
        "message": it.message,
        "error_code": 0,
        "error_message": "",
    }


def segment(it: SegmentInfo) -> dict[str, Any]:
    """One segment, as upstream tells it."""
    return {
        "segment_name": it.name,
        "segment_id": id_text(it.id),
        "client_id": id_text(it.client),
        "base_address": hex(it.base),
        "size_bytes": it.size,
        "size_human": f"{it.size / (1 << 30):g} GiB",
        "te_endpoint": it.endpoint,
        "protocol": it.protocol,
        "status": segment_status(it).name,
        "allocator_used_bytes": it.used,
        "allocator_capacity_bytes": it.size,
        "allocator_usage_percent": 100 * it.used / it.size if it.size else 0.0,
    }


def segment_status(it: SegmentInfo) -> SegmentStatus:
    """Upstream's word for the pool's."""
    return SegmentStatus(SEGMENT_STATUS[it.status])


def caller(it: CallerFacts) -> dict[str, Any]:
    """The connections of a client, or one."""
    return {
        "address": it.address,
        "version": it.version,
        "connected": it.connected,
        "connections": it.connections,
        "last_ago": round(it.last_ago, 3),
        "calls": it.calls,
        "failures": {str(int(code)): count for code, count in it.failures.items()},
        "unknown_calls": dict(it.unknown),
        "malformed": it.malformed,
        "turned_away": dict(it.turned_away),
        "lookups": it.lookups,
        "found": it.found,
        "tenants": list(it.tenants),
    }
