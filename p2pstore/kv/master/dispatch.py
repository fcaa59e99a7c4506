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

Args = tuple[Any, ...]
Handler = Callable[[Args], Any]

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
        "counts",
        "form",
        "handler",
        "long",
        "looks_up",
        "many",
        "name",
        "read",
        "says_whether",
        "starts",
        "tenant",
    )

    def __init__(self, form: Form, handler: Handler, counts: Counts) -> None:
        method = form.method
        self.form = form
        self.name = method.name
        self.read: Callable[[bytes, int], Args] = form.codec.read if form.codec else _nothing
        self.handler = handler
        self.counts = counts
        self.answers = {generation: method.answers[generation] for generation in form.generations}
        kinds = set(self.answers.values())
        self.answer: Codec | None = kinds.pop() if len(kinds) == 1 else None
        """The codec of the answer, where all generations that send this form share one."""
        self.starts = self.name in STARTS
        self.long = self.name in LONG
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


def _nothing(_: bytes, __: int) -> Args:
    return ()


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
    "MountNoFSegment": lambda _: Code.BAD_MODE,
    "ReMountNoFSegment": lambda _: Code.BAD_MODE,
    "UnmountNoFSegment": lambda _: Code.BAD_MODE,
    "GetAllNoFSegments": lambda _: [],
    "GetNoFSegmentsByName": lambda _: Code.NO_SEGMENT,
    # Clients make these for tasks of a kind that this master gives to nobody; so they know a lease of another one.
    "DynamicReplicaCopyStart": lambda _: Code.BAD_STATUS,
    "DynamicReplicaCopyEnd": lambda _: Code.NO_TASK_FOR_KEY,
    "DynamicReplicaCopyRevoke": lambda _: Code.NO_TASK_FOR_KEY,
}
"""Calls for what is not there, with upstream's codes where it is switched off."""


def handlers(pool: Any) -> dict[str, Handler]:
    """What each call does, by its name; arguments are those of ``engine.rpc.methods``."""
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
    def query_ip(args: Args) -> dict[bytes, list[str]]:
        found = ((client, pool.query_ip(client)) for client in args[0])
        return {client: hosts for client, hosts in found if type(hosts) is not Code}

    def status(args: Args) -> int | Code:
        if args[0] == EXTENSIONS_ASKED:
            return int(Extension.REPORT_UNREACHABLE)
        segment = pool.segment(args[0])
        return segment if type(segment) is Code else SEGMENT_STATUS[segment.status]

    def status_by_id(args: Args) -> int | Code:
        found = (each for each in pool.segments() if each.id == args[0])
        return next((SEGMENT_STATUS[each.status] for each in found), Code.NO_SEGMENT)

    return {
        "ServiceReady": lambda _: SERVICE_VERSION,
        "GetStorageConfig": lambda _: pool.storage_config(),
        "GetFsdir": lambda _: pool.storage_config().root,
        "Ping": lambda args: pool.ping(args[0]),
        "MountSegment": lambda args: pool.mount(args[1], args[0]),
        "ReMountSegment": lambda args: pool.remount(args[1], args[0]),
        "UnmountSegment": lambda args: pool.unmount(args[1], args[0]),
        "GracefulUnmountSegment": lambda args: pool.unmount(args[1], args[0], args[2] / 1000),
        "QuerySegmentStatus": status,
        "QuerySegmentStatusById": status_by_id,
        "BatchQueryIp": query_ip,
        "ReportUnreachable": lambda args: pool.suspect(args[1], refused=args[2]),
    }


def _reads(pool: Any) -> dict[str, Handler]:
    exists, exist, found = pool.exists, pool.exist, pool.found
    return {
        "ExistKey": lambda args: exists(args[0], args[1]),
        "BatchExistKey": lambda args: exist(args[0], args[1]),
        "GetReplicaList": lambda args: pool.found_one(*args),
        "BatchGetReplicaList": lambda args: found(args[0], args[1]),
        "GetReplicaListByRegex": lambda args: pool.replicas_by_regex(args[0], args[1]),
    }


def _writes(pool: Any) -> dict[str, Handler]:
    def one(start: Callable[..., Any]) -> Handler:
        return lambda args: start(args[0], (args[1],), (args[2],), args[3], args[4])

    def many(start: Callable[..., Any]) -> Handler:
        return lambda args: start(*args)

    put_end, put_revoke = pool.put_end, pool.put_revoke
    upsert_end, upsert_revoke = pool.upsert_end, pool.upsert_revoke
    every = int(m.Kind.ALL)
    return {
        "PutStart": lambda args: [pool.put_begin_one(*args)],
        "BatchPutStart": many(pool.put_begin),
        "PutEnd": lambda args: pool.put_end_one(*args),
        "BatchPutEnd": lambda args: put_end(*args),
        "PutRevoke": lambda args: put_revoke(args[0], (args[1],), args[2], args[3])[0],
        "BatchPutRevoke": lambda args: put_revoke(*args),
        "UpsertStart": one(pool.upsert_start),
        "BatchUpsertStart": many(pool.upsert_start),
        "UpsertEnd": lambda args: upsert_end(args[0], (args[1],), args[2], args[3])[0],
        "BatchUpsertEnd": lambda args: upsert_end(args[0], args[1], every, args[2]),
        "UpsertRevoke": lambda args: upsert_revoke(args[0], (args[1],), args[2], args[3])[0],
        "BatchUpsertRevoke": lambda args: upsert_revoke(args[0], args[1], every, args[2]),
    }


def _removals(pool: Any) -> dict[str, Handler]:
    return {
        "Remove": lambda args: pool.remove((args[0],), args[1], args[2])[0],
        "BatchRemove": lambda args: pool.remove(args[0], args[1], args[2]),
        "RemoveByRegex": lambda args: pool.remove_by_regex(args[0], args[1], args[2]),
        "RemoveAll": lambda args: pool.remove_all(args[0], args[1]),
        "BatchReplicaClear": lambda args: pool.replica_clear(args[0], args[1], args[2]),
    }


def _tasks(pool: Any) -> dict[str, Handler]:
    def call(name: str, *order: int) -> Handler:
        """A method of the pool, its arguments in another order than the call's: the tenant is the last there."""
        return lambda args: getattr(pool, name)(*[args[place] for place in order])

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
        "MountLocalDiskSegment": lambda args: pool.mount_disk(args[0], args[1]),
        "UnmountLocalDiskSegment": lambda args: pool.unmount_disk(args[0]),
        "ReportSsdCapacity": lambda args: pool.report_disk(args[0], args[1]),
        "PollRemoveAll": lambda args: pool.poll_remove_all(args[0]),
        "OffloadObjectHeartbeat": lambda args: pool.offload_heartbeat(args[0], args[1]),
        "NotifyOffloadSuccess": lambda args: pool.offloaded(args[0], args[1], args[2]),
        "PromotionObjectHeartbeat": lambda args: pool.promotion_heartbeat(args[0]),
        "PromotionAllocStart": lambda args: pool.promotion_start(args[0], args[1], args[3], args[4], args[2]),
        "NotifyPromotionSuccess": lambda args: pool.promotion_done(args[0], args[1], args[2]),
        "NotifyPromotionFailure": lambda args: pool.promotion_failed(args[0], args[1], args[2]),
        "EvictDiskReplica": lambda args: pool.evict_disk(args[0], (args[1],), args[3], args[2])[0],
        "BatchEvictDiskReplica": lambda args: pool.evict_disk(args[0], args[1], args[3], args[2]),
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
