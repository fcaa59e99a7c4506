"""Which method of the pool carries out which call, and what a result counts as. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.rpc import messages as m
from engine.rpc.codes import Code
from engine.rpc.compiled import Codec
from engine.rpc.methods import EXTENSIONS_ASKED, FORMS, Extension, Form
from p2pstore.kv.master.long_calls import LONG

SERVICE_VERSION = "2.0.0"
"""What every master of 0.3.9 to 0.3.13 says of itself; clients refuse another."""

Handler = Callable[..., Any]
"""Takes the arguments of a call, in the order of ``engine.rpc.methods``."""

STARTS = ("PutStart", "BatchPutStart", "UpsertStart", "BatchUpsertStart")
"""Calls that may have to wait: for somebody else's write of the key, or for room."""

LOOKUPS = ("ExistKey", "BatchExistKey", "GetReplicaList", "BatchGetReplicaList")
"""Calls by which a hit rate is counted."""


class Counts(list[int]):
    """Of one call: requests, failures, partial successes, items, failed items."""

    def __init__(self) -> None:
        super().__init__([0, 0, 0, 0, 0])


class Route:
    """One form of a call: what is done, how it is answered, and what is counted."""

    __slots__ = (
        "answer",
        "answers",
        "client",
        "codec",
        "counts",
        "form",
        "handler",
        "long",
        "looks_up",
        "many",
        "name",
        "plain",
        "says_whether",
        "starts",
        "tenant",
    )

    def __init__(self, form: Form, handler: Handler, counts: Counts) -> None:
        method = form.method
        self.form = form
        self.name = method.name
        self.codec = form.codec
        self.handler = handler
        self.counts = counts
        self.answers = {generation: method.answers[generation] for generation in form.generations}
        kinds = set(self.answers.values())
        self.answer: Codec | None = kinds.pop() if len(kinds) == 1 else None
        """The codec of the answer, where all generations that send this form share one."""
        self.starts = self.name in STARTS
        self.long = self.name in LONG
        self.plain = not self.starts and not self.long
        """Whether it is answered at once, come what may."""
        self.looks_up = self.name in LOOKUPS
        self.says_whether = self.name.endswith("ExistKey")
        self.many = self.name.startswith("Batch") and self.name not in ("BatchQueryIp", "BatchReplicaClear")
        self.client = method.names.index("client") if "client" in method.names else -1
        self.tenant = method.names.index("tenant") if "tenant" in method.names else -1


SEGMENT_STATUS = {
    "OK": int(m.SegmentStatus.OK),
    "SUSPECT": int(m.SegmentStatus.OK),
    "ABSENT": int(m.SegmentStatus.UNMOUNTING),
    "UNMOUNTING": int(m.SegmentStatus.GRACEFULLY_UNMOUNTING),
    "DRAINING": int(m.SegmentStatus.DRAINING),
    "DRAINED": int(m.SegmentStatus.DRAINED),
}
"""Upstream's word for what the pool says of a segment."""


def routes(pool: Any) -> tuple[dict[int, Route], dict[str, Counts]]:
    """A route for each form of each call, by its key in ``FORMS``, and the counts by call."""
    known = handlers(pool)
    counts = {name: Counts() for name in known}
    found = {
        key: Route(form, known[form.method.name], counts[form.method.name])
        for key, form in FORMS.items()
        if form.method.name in known
    }
    return found, counts


_ABSENT: dict[str, Handler] = {
    # Upstream's wheels are built without NVMe over Fabrics, and answer so.
    "MountNoFSegment": lambda *_: Code.BAD_MODE,
    "ReMountNoFSegment": lambda *_: Code.BAD_MODE,
    "UnmountNoFSegment": lambda *_: Code.BAD_MODE,
    "GetAllNoFSegments": lambda *_: [],
    "GetNoFSegmentsByName": lambda *_: Code.NO_SEGMENT,
    # Clients make these for tasks of a kind that this master gives to nobody; so they know a lease of another one.
    "DynamicReplicaCopyStart": lambda *_: Code.BAD_STATUS,
    "DynamicReplicaCopyEnd": lambda *_: Code.NO_TASK_FOR_KEY,
    "DynamicReplicaCopyRevoke": lambda *_: Code.NO_TASK_FOR_KEY,
}
"""Calls for what is not there, with upstream's codes where it is switched off."""


def handlers(pool: Any) -> dict[str, Handler]:
    """What each call does, by its name."""
    return {
        **_ABSENT,
        **_clients(pool),
        **_reads(pool),
        **_writes(pool),
        **_removals(pool),
        **_tasks(pool),
        **_disks(pool),
    }


def _clients(pool: Any) -> dict[str, Handler]:
    def query_ip(clients: Sequence[bytes]) -> dict[bytes, list[str]]:
        found = ((client, pool.query_ip(client)) for client in clients)
        return {client: hosts for client, hosts in found if type(hosts) is not Code}

    def status(name: str) -> int | Code:
        if name == EXTENSIONS_ASKED:
            return int(Extension.REPORT_UNREACHABLE)
        segment = pool.segment(name)
        return segment if type(segment) is Code else SEGMENT_STATUS[segment.status]

    def status_by_id(segment_id: bytes) -> int | Code:
        found = (each for each in pool.segments() if each.id == segment_id)
        return next((SEGMENT_STATUS[each.status] for each in found), Code.NO_SEGMENT)

    return {
        "ServiceReady": lambda: SERVICE_VERSION,
        "GetStorageConfig": pool.storage_config,
        "GetFsdir": lambda: pool.storage_config().root,
        "Ping": pool.ping,
        "MountSegment": lambda segment, client: pool.mount(client, segment),
        "ReMountSegment": lambda segments, client: pool.remount(client, segments),
        "UnmountSegment": lambda segment_id, client: pool.unmount(client, segment_id),
        "GracefulUnmountSegment": lambda segment_id, client, grace_ms: pool.unmount(
            client, segment_id, grace_ms / 1000
        ),
        "QuerySegmentStatus": status,
        "QuerySegmentStatusById": status_by_id,
        "BatchQueryIp": query_ip,
        "ReportUnreachable": lambda _, endpoint, refused: pool.suspect(endpoint, refused=refused),
    }


def _reads(pool: Any) -> dict[str, Handler]:
    return {
        "ExistKey": pool.exists,
        "BatchExistKey": pool.exist,
        "GetReplicaList": pool.found_one,
        "BatchGetReplicaList": pool.found,
        "GetReplicaListByRegex": pool.replicas_by_regex,
    }


def _writes(pool: Any) -> dict[str, Handler]:
    put_end, put_revoke = pool.put_end, pool.put_revoke
    upsert_start, upsert_end, upsert_revoke = pool.upsert_start, pool.upsert_end, pool.upsert_revoke
    every = int(m.Kind.ALL)
    return {
        "PutStart": pool.put_begin_one,
        "BatchPutStart": pool.put_begin,
        "PutEnd": pool.put_end_one,
        "BatchPutEnd": put_end,
        "PutRevoke": lambda client, key, kind, tenant: put_revoke(client, (key,), kind, tenant)[0],
        "BatchPutRevoke": put_revoke,
        "UpsertStart": lambda client, key, size, config, tenant: upsert_start(client, (key,), (size,), config, tenant)[
            0
        ],
        "BatchUpsertStart": upsert_start,
        "UpsertEnd": lambda client, meta, kind, tenant: upsert_end(client, (meta,), kind, tenant)[0],
        "BatchUpsertEnd": lambda client, metas, tenant: upsert_end(client, metas, every, tenant),
        "UpsertRevoke": lambda client, key, kind, tenant: upsert_revoke(client, (key,), kind, tenant)[0],
        "BatchUpsertRevoke": lambda client, keys, tenant: upsert_revoke(client, keys, every, tenant),
    }


def _removals(pool: Any) -> dict[str, Handler]:
    return {
        "Remove": lambda key, force, tenant: pool.remove((key,), force, tenant)[0],
        "BatchRemove": pool.remove,
        "RemoveByRegex": pool.remove_by_regex,
        "RemoveAll": pool.remove_all,
        "BatchReplicaClear": pool.replica_clear,
    }


def _tasks(pool: Any) -> dict[str, Handler]:
    def call(name: str, *order: int) -> Handler:
        """A method of the pool, its arguments in another order than the call's: the tenant is the last there."""
        return lambda *args: getattr(pool, name)(*[args[place] for place in order])

    return {
        "CreateCopyTask": call("create_copy", 0, 2, 1),
        "CreateMoveTask": call("create_move", 0, 2, 3, 1),
        "QueryTask": call("query_task", 0),
        "FetchTasks": call("fetch_tasks", 0, 1),
        "MarkTaskToComplete": call("task_done", 0, 1),
        "CopyStart": call("copy_start", 0, 1, 3, 4, 2),
        "CopyEnd": call("copy_end", 0, 1, 2),
        "CopyRevoke": call("copy_revoke", 0, 1, 2),
        "MoveStart": call("move_start", 0, 1, 3, 4, 2),
        "MoveEnd": call("move_end", 0, 1, 2),
        "MoveRevoke": call("move_revoke", 0, 1, 2),
    }


def _disks(pool: Any) -> dict[str, Handler]:
    return {
        "MountLocalDiskSegment": pool.mount_disk,
        "UnmountLocalDiskSegment": pool.unmount_disk,
        "ReportSsdCapacity": pool.report_disk,
        "PollRemoveAll": pool.poll_remove_all,
        "OffloadObjectHeartbeat": pool.offload_heartbeat,
        "NotifyOffloadSuccess": pool.offloaded,
        "PromotionObjectHeartbeat": pool.promotion_heartbeat,
        "PromotionAllocStart": lambda client, key, tenant, size, segments: pool.promotion_start(
            client, key, size, segments, tenant
        ),
        "NotifyPromotionSuccess": pool.promotion_done,
        "NotifyPromotionFailure": pool.promotion_failed,
        "EvictDiskReplica": lambda client, key, tenant, kind: pool.evict_disk(client, (key,), kind, tenant)[0],
        "BatchEvictDiskReplica": lambda client, keys, tenant, kind: pool.evict_disk(client, keys, kind, tenant),
    }


def counted(counts: Counts, results: Sequence[Any]) -> list[Code]:
    """Count a call of several items by its results; returns what failed."""
    counts[3] += len(results)
    if Code not in set(map(type, results)):
        return []
    failed = [result for result in results if type(result) is Code and result]
    if failed:
        counts[4] += len(failed)
        counts[1 if len(failed) == len(results) else 2] += 1
    return failed
