"""The calls of a master as data: what each generation of client sends, and what it is answered.

Source: upstream's ``rpc_service.h`` at each tag. A type that changed is a ``dict``: each form stands under the
generation since which it holds, and an argument that is not there before the first of them is given its default.

``EXTENSIONS`` are calls of ours. A client makes one only where the master has said that it serves it: asked for the
status of the segment ``EXTENSIONS_ASKED``, which is none, upstream's master says that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag

from engine.rpc import forms as f
from engine.rpc.compiled import Codec
from engine.rpc.messages import DEFAULT_TENANT, Kind
from engine.rpc.types import (
    BOOL,
    I32,
    I64,
    ID,
    STRING,
    U64,
    VOID,
    Expected,
    Map,
    Type,
    Vector,
    arguments,
    function_id,
)

GENERATIONS = ("0.3.9", "0.3.11", "0.3.12", "0.3.13")
"""From the oldest to the newest; each is named for the first release that spoke it."""

NEWEST = GENERATIONS[-1]

DEFAULTS = {"tenant": DEFAULT_TENANT, "kind": int(Kind.ALL), "force": False}
"""Of arguments that not every generation can say."""

MASTER = "WrappedMasterService"
"""The class whose methods upstream's calls are."""

EXTENSIONS_ASKED = "which calls of mooncake's own are served here"
"""No segment is called so; a master of ours answers a ``QuerySegmentStatus`` of it with ``Extension``."""


class Extension(IntFlag):
    """Calls of ours that a master serves."""

    REPORT_UNREACHABLE = 1


Since = Mapping[str, Type]
"""A type that changed, by the generation since which each form holds."""


class Form:
    """One form of a call's request, and the generations that send it. Without arguments there is no codec."""

    __slots__ = ("codec", "generations", "method")

    def __init__(self, method: Method, codec: Codec | None) -> None:
        self.method = method
        self.codec = codec
        self.generations: tuple[str, ...] = ()


class Method:
    """A call: its arguments by name, its forms and the codecs of its answers by generation."""

    __slots__ = ("answers", "function", "name", "names", "requests")

    def __init__(
        self, name: str, answer: Type | Since, since: str, service: str = MASTER, /, **fields: Type | Since
    ) -> None:
        """``service`` is the class that its number is made of."""
        self.name = name
        self.names = tuple(fields)
        self.function = function_id(name, service)
        self.requests: dict[str, Form] = {}
        self.answers: dict[str, Codec] = {}
        forms: dict[bytes, Form] = {}
        codecs: dict[Type, Codec] = {}
        for generation in GENERATIONS[GENERATIONS.index(since) :]:
            present = {name: kind for name, each in fields.items() if (kind := held(each, generation))}
            asked = arguments(self.names, DEFAULTS, present) if present else None
            literal = asked.literal if asked else b""
            if literal not in forms:
                forms[literal] = Form(self, Codec(asked) if asked else None)
            forms[literal].generations += (generation,)
            self.requests[generation] = forms[literal]
            answered = held(answer, generation) or VOID
            if answered not in codecs:
                codecs[answered] = Codec(answered)
            self.answers[generation] = codecs[answered]


def held(kind: Type | Since, generation: str) -> Type | None:
    """The form that holds for a generation: the last that began with it or before."""
    if isinstance(kind, Type):
        return kind
    begun = [each for each in GENERATIONS[: GENERATIONS.index(generation) + 1] if each in kind]
    return kind[begun[-1]] if begun else None


def _each(kinds: Since) -> Since:
    return {since: Vector(kind) for since, kind in kinds.items()}


def _or_code(kinds: Since) -> Since:
    return {since: Expected(kind) for since, kind in kinds.items()}


_Fields = dict[str, Type | Since]

_DONE = Expected(VOID)
_FOUND = Expected(BOOL)
_STRINGS = Expected(f.STRINGS)
_TENANT = {"0.3.12": STRING}
_KIND = {"0.3.11": I32}
_MEMBER: _Fields = {"client": ID, "key": STRING, "tenant": _TENANT}
_MEMBERS: _Fields = {"client": ID, "keys": f.STRINGS, "kind": _KIND, "tenant": _TENANT}
_START: _Fields = {"client": ID, "key": STRING, "size": U64, "config": f.CONFIG, "tenant": _TENANT}
_BATCH_START: _Fields = {"client": ID, "keys": f.STRINGS, "sizes": Vector(U64), "config": f.CONFIG, "tenant": _TENANT}
_END: _Fields = {"client": ID, "meta": f.META, "kind": I32, "tenant": _TENANT}
_REVOKE: _Fields = {"client": ID, "key": STRING, "kind": I32, "tenant": _TENANT}
_LEASED: _Fields = {"lease": ID, "version": U64}
_BATCH_REPLICA_LIST = _each(f.REPLICA_LIST)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("ServiceReady", Expected(STRING), "0.3.9"),
        Method("GetStorageConfig", Expected(f.STORAGE_CONFIG), "0.3.9"),
        Method("GetFsdir", Expected(STRING), "0.3.9"),
        Method("Ping", Expected(f.PING), "0.3.9", client=ID),
        Method("MountSegment", _DONE, "0.3.9", segment=f.SEGMENT, client=ID),
        Method("ReMountSegment", _DONE, "0.3.9", segments=_each(f.SEGMENT), client=ID),
        Method("UnmountSegment", _DONE, "0.3.9", segment_id=ID, client=ID),
        Method("GracefulUnmountSegment", _DONE, "0.3.11", segment_id=ID, client=ID, grace_ms=U64),
        Method("QuerySegmentStatus", Expected(I32), "0.3.11", name=STRING),
        Method("QuerySegmentStatusById", Expected(I32), "0.3.11", segment_id=ID),
        Method("ExistKey", _FOUND, "0.3.9", key=STRING, tenant=_TENANT),
        Method("BatchExistKey", Vector(_FOUND), "0.3.9", keys=f.STRINGS, tenant=_TENANT),
        Method("GetReplicaList", _or_code(f.REPLICAS), "0.3.9", key=STRING, tenant=_TENANT),
        Method("BatchGetReplicaList", _each(_or_code(f.REPLICAS)), "0.3.9", keys=f.STRINGS, tenant=_TENANT),
        Method(
            "GetReplicaListByRegex",
            {since: Expected(Map(STRING, Vector(replica))) for since, replica in f.REPLICA.items()},
            "0.3.9",
            regex=STRING,
            tenant=_TENANT,
        ),
        Method("BatchQueryIp", Expected(Map(ID, f.STRINGS)), "0.3.9", clients=Vector(ID)),
        Method("BatchReplicaClear", _STRINGS, "0.3.9", keys=f.STRINGS, client=ID, segment=STRING),
        Method("PutStart", f.REPLICA_LIST, "0.3.9", **_START),
        Method("PutEnd", _DONE, "0.3.9", **_END),
        Method("PutRevoke", _DONE, "0.3.9", **_REVOKE),
        Method("BatchPutStart", _BATCH_REPLICA_LIST, "0.3.9", **_BATCH_START),
        Method("BatchPutEnd", Vector(_DONE), "0.3.9", client=ID, metas=_each(f.META), kind=_KIND, tenant=_TENANT),
        Method("BatchPutRevoke", Vector(_DONE), "0.3.9", **_MEMBERS),
        Method("UpsertStart", f.REPLICA_LIST, "0.3.11", **_START),
        Method("UpsertEnd", _DONE, "0.3.11", **_END),
        Method("UpsertRevoke", _DONE, "0.3.11", **_REVOKE),
        Method("BatchUpsertStart", _BATCH_REPLICA_LIST, "0.3.11", **_BATCH_START),
        Method("BatchUpsertEnd", Vector(_DONE), "0.3.11", client=ID, metas=_each(f.META), tenant=_TENANT),
        Method("BatchUpsertRevoke", Vector(_DONE), "0.3.11", client=ID, keys=f.STRINGS, tenant=_TENANT),
        Method("Remove", _DONE, "0.3.9", key=STRING, force=BOOL, tenant=_TENANT),
        Method("BatchRemove", Vector(_DONE), "0.3.11", keys=f.STRINGS, force=BOOL, tenant=_TENANT),
        Method("RemoveByRegex", Expected(I64), "0.3.9", regex=STRING, force=BOOL, tenant=_TENANT),
        Method("RemoveAll", I64, "0.3.9", force=BOOL, tenant=_TENANT),
        Method("CreateCopyTask", Expected(ID), "0.3.9", key=STRING, tenant=_TENANT, targets=f.STRINGS),
        Method("CreateMoveTask", Expected(ID), "0.3.9", key=STRING, tenant=_TENANT, source=STRING, target=STRING),
        Method("QueryTask", Expected(f.TASK), "0.3.9", task_id=ID),
        Method("FetchTasks", f.ASSIGNMENTS, "0.3.9", client=ID, count=U64),
        Method("MarkTaskToComplete", _DONE, "0.3.9", client=ID, done=f.TASK_DONE),
        Method("CopyStart", _or_code(f.COPY_PLAN), "0.3.9", **_MEMBER, source=STRING, targets=f.STRINGS),
        Method("CopyEnd", _DONE, "0.3.9", **_MEMBER),
        Method("CopyRevoke", _DONE, "0.3.9", **_MEMBER),
        Method("MoveStart", _or_code(f.MOVE_PLAN), "0.3.9", **_MEMBER, source=STRING, target=STRING),
        Method("MoveEnd", _DONE, "0.3.9", **_MEMBER),
        Method("MoveRevoke", _DONE, "0.3.9", **_MEMBER),
        Method("MountLocalDiskSegment", _DONE, "0.3.9", client=ID, enable=BOOL),
        Method("UnmountLocalDiskSegment", _DONE, "0.3.13", client=ID),
        Method("ReportSsdCapacity", _DONE, "0.3.11", client=ID, capacity=I64),
        Method("PollRemoveAll", _FOUND, "0.3.12", client=ID),
        Method("OffloadObjectHeartbeat", f.OFFLOAD_ITEMS, "0.3.9", client=ID, enable=BOOL),
        Method(
            "NotifyOffloadSuccess",
            _DONE,
            "0.3.9",
            client=ID,
            items={"0.3.9": Vector(f.OFFLOAD_KEY), "0.3.12": Vector(f.OFFLOAD_ITEM)},
            stored=Vector(f.STORED),
        ),
        Method("PromotionObjectHeartbeat", f.OFFLOAD_ITEMS, "0.3.11", client=ID),
        Method(
            "PromotionAllocStart",
            _or_code(f.REPLICA_ALONE),
            "0.3.11",
            **_MEMBER,
            size=U64,
            segments=f.STRINGS,
        ),
        Method("NotifyPromotionSuccess", _DONE, "0.3.11", **_MEMBER),
        Method("NotifyPromotionFailure", _DONE, "0.3.11", **_MEMBER),
        Method("MountNoFSegment", _DONE, "0.3.11", segment=f.NOF_SEGMENT, client=ID),
        Method("ReMountNoFSegment", _DONE, "0.3.11", segments=Vector(f.NOF_SEGMENT), client=ID),
        Method("UnmountNoFSegment", _DONE, "0.3.11", segment_id=ID, client=ID),
        Method("GetAllNoFSegments", Expected(Vector(f.NOF_SEGMENT)), "0.3.11"),
        Method("GetNoFSegmentsByName", Expected(Vector(f.NOF_OWNER)), "0.3.11", name=STRING),
        Method(
            "DynamicReplicaCopyStart",
            _or_code(f.COPY_PLAN),
            "0.3.13",
            **_MEMBER,
            source=STRING,
            targets=f.STRINGS,
            **_LEASED,
        ),
        Method("DynamicReplicaCopyEnd", _DONE, "0.3.13", **_MEMBER, **_LEASED),
        Method("DynamicReplicaCopyRevoke", _DONE, "0.3.13", **_MEMBER, **_LEASED),
        Method("EvictDiskReplica", _DONE, "0.3.11", **_MEMBER, kind=I32),
        Method("BatchEvictDiskReplica", Vector(_DONE), "0.3.11", client=ID, keys=f.STRINGS, tenant=_TENANT, kind=I32),
    )
}
"""Upstream's, by name."""

EXTENSIONS: dict[str, Method] = {
    method.name: method
    for method in (
        # Of segments, by the endpoint, and whether the connection was refused there.
        Method("ReportUnreachable", _DONE, NEWEST, "MooncakeExtensions", client=ID, endpoint=STRING, refused=BOOL),
    )
}
"""Ours, by name. Its class is none of upstream's, so that no call of a later release has the same number."""

CALLS: dict[str, Method] = {**METHODS, **EXTENSIONS}

FORMS: dict[int, Form] = {
    method.function << 32 | (form.codec.hash if form.codec else 0): form
    for method in CALLS.values()
    for form in method.requests.values()
}
"""By function and hash of the request."""

FUNCTIONS: dict[int, Method] = {method.function: method for method in CALLS.values()}
