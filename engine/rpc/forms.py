"""The structs of each generation, and which neutral form they become.

Source: upstream's headers at each tag (``replica.h``, ``types.h``, ``rpc_types.h``). A generation is named for the
first release that spoke it; a form stands under the generation since which it holds.
"""

from __future__ import annotations

import json

from engine.rpc import messages as m
from engine.rpc.types import (
    BOOL,
    I32,
    I64,
    ID,
    STRING,
    U8,
    U32,
    U64,
    Expected,
    Optional,
    Pairs,
    Scalar,
    String,
    Struct,
    Variant,
    Vector,
)

STRINGS = Vector(STRING)

SOFT_PIN = Scalar(BOOL.literal[0], "?", "bool", read="int({})", write=f"{{}} == {int(m.SoftPin.ENABLE)}")
"""Until 0.3.12 a put could only ask for a soft pin, or not."""


def _payload(copy: str, move: str = "key source target") -> String:
    """The JSON of a task, with no field that a generation does not know: its reader stumbles over others."""
    names = {"targets": copy.split(), "target": move.split()}

    def known(text: str) -> str:
        payload = json.loads(text)
        kept = names["targets" if "targets" in payload else "target"]
        return json.dumps({name: payload[name] for name in kept if name in payload}, separators=(",", ":"))

    return String(write=known)


def _place(make: type, *, braces: int = 2) -> Struct:
    fields = [("size", U64), ("address", U64), ("protocol", STRING), ("endpoint", STRING)]
    return Struct(make, fields, braces=braces, few=True)


MEMORY = _place(m.Memory)
NOF = _place(m.Nof)
DISK = Struct(m.Disk, [("path", STRING), ("size", U64)])
LOCAL_DISK = Struct(m.LocalDisk, [("client", ID), ("size", U64), ("endpoint", STRING)])
DFS = Struct(m.Dfs, [("path", STRING), ("offset", U64), ("size", U64), ("aligned", U64), ("shard", I32)])

_PLACES = {
    "0.3.9": Variant(MEMORY, DISK, LOCAL_DISK),
    "0.3.11": Variant(MEMORY, NOF, DISK, LOCAL_DISK),
    "0.3.13": Variant(MEMORY, NOF, DISK, LOCAL_DISK, DFS),
}


def _replica(places: Variant, *, braces: int = 1) -> Struct:
    return Struct(m.Replica, [("id", U64), ("place", places), ("status", I32)], braces=braces)


REPLICA = {since: _replica(places) for since, places in _PLACES.items()}

REPLICA_ALONE = {since: _replica(places, braces=2) for since, places in _PLACES.items()}
"""A struct of one replica."""

REPLICA_LIST = {since: Expected(Vector(replica)) for since, replica in REPLICA.items()}

_READ = [("lease_ms", U64)]
_CHECKED = [*_READ, ("checksum", Optional(U64))]

REPLICAS = {
    since: Struct(m.Replicas, [("replicas", Vector(replica)), *(_CHECKED if since == "0.3.13" else _READ)])
    for since, replica in REPLICA.items()
}

COPY_PLAN = {
    since: Struct(m.CopyPlan, [("source", replica), ("targets", Vector(replica))]) for since, replica in REPLICA.items()
}
MOVE_PLAN = {
    since: Struct(m.MovePlan, [("source", replica), ("target", Optional(replica))])
    for since, replica in REPLICA.items()
}

_SEGMENT = [
    ("id", ID),
    ("name", STRING),
    ("base", U64),
    ("size", U64),
    ("endpoint", STRING),
    ("protocol", STRING),
]
SEGMENT = {
    "0.3.9": Struct(m.Segment, _SEGMENT),
    "0.3.12": Struct(m.Segment, [*_SEGMENT, ("host_id", STRING)]),
}

NOF_SEGMENT = Struct(m.NofSegment, [("id", ID), ("name", STRING), ("base", U64), ("size", U64), ("endpoint", STRING)])
NOF_OWNER = Struct(m.NofOwner, [("segment", ID), ("client", ID)])

CONFIG = {
    "0.3.9": Struct(
        m.ReplicateConfig,
        [
            ("replica_num", U64),
            ("soft_pin_action", SOFT_PIN),
            ("preferred_segments", STRINGS),
            ("preferred_segment", STRING),
            ("prefer_alloc_in_same_node", BOOL),
        ],
        few=True,
    ),
    "0.3.11": Struct(
        m.ReplicateConfig,
        _EARLY := [
            ("replica_num", U64),
            ("nof_replica_num", U64),
            ("soft_pin_action", SOFT_PIN),
            ("with_hard_pin", BOOL),
            ("preferred_segments", STRINGS),
            ("preferred_segment", STRING),
            ("preferred_nof_segments", STRINGS),
            ("prefer_alloc_in_same_node", BOOL),
            ("data_type", U8),
        ],
        few=True,
    ),
    "0.3.12": Struct(m.ReplicateConfig, [*_EARLY, ("host_id", STRING), ("group_ids", Optional(STRINGS))], few=True),
    "0.3.13": Struct(
        m.ReplicateConfig,
        [
            ("replica_num", U64),
            ("nof_replica_num", U64),
            ("dfs_replica_num", U64),
            ("soft_pin_action", U8),
            ("soft_pin_ttl_ms", Optional(U64)),
            ("with_hard_pin", BOOL),
            ("preferred_segments", STRINGS),
            ("preferred_segment", STRING),
            ("preferred_nof_segments", STRINGS),
            ("prefer_alloc_in_same_node", BOOL),
            ("data_type", U8),
            ("host_id", STRING),
            ("group_ids", Optional(STRINGS)),
        ],
        few=True,
    ),
}


def _meta(*checksum: tuple[str, Optional]) -> Struct:
    fields, defaults = m.ObjectMeta._fields, m.ObjectMeta._field_defaults
    braces = 1 if checksum else 0
    return Struct(tuple, [("key", STRING), *checksum], names=fields, defaults=defaults, braces=braces)


META = {"0.3.9": _meta(), "0.3.13": _meta(("checksum", Optional(U64)))}
"""A key whose value was written: the bare key, until the client could say a checksum.

They are read as plain tuples, of which a call may have many: a named one takes twice the time.
"""

STORAGE_CONFIG = Struct(m.StorageConfig, [("root", STRING), ("eviction", BOOL), ("quota", U64)])
PING = Struct(m.Ping, [("view", I64), ("status", I32)])

_TENANT = {"tenant": m.DEFAULT_TENANT}

OFFLOAD_KEY = Struct(m.OffloadItem, [("key", STRING)], defaults={**_TENANT, "size": 0}, braces=0)
OFFLOAD_ITEM = Struct(m.OffloadItem, [("tenant", STRING), ("key", STRING), ("size", I64)])
OFFLOAD_ITEMS = {
    "0.3.9": Expected(Pairs(Struct(m.OffloadItem, [("key", STRING), ("size", I64)], defaults=_TENANT))),
    "0.3.12": Expected(Vector(OFFLOAD_ITEM)),
}
STORED = Struct(
    m.StoredObject,
    [("bucket", I64), ("offset", I64), ("key_size", I64), ("size", I64), ("endpoint", STRING)],
)


def _assignment(payload: String, *retries: tuple[str, Scalar]) -> Expected:
    fields = [("id", ID), ("type", I32), ("payload", payload), ("created_ms", I64), *retries]
    return Expected(Vector(Struct(m.TaskAssignment, fields)))


ASSIGNMENTS = {
    "0.3.9": _assignment(_payload("key targets")),
    "0.3.11": _assignment(_payload("key source targets"), ("retries", U32)),
    "0.3.12": _assignment(_payload("tenant_id key source targets", "tenant_id key source target"), ("retries", U32)),
    "0.3.13": _assignment(STRING, ("retries", U32)),
}

TASK_DONE = Struct(m.TaskDone, [("id", ID), ("status", I32), ("message", STRING)])
TASK = Struct(
    m.Task,
    [
        ("id", ID),
        ("type", I32),
        ("status", I32),
        ("created_ms", I64),
        ("updated_ms", I64),
        ("client", ID),
        ("message", STRING),
    ],
)
