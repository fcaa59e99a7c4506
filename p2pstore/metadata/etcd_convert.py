"""Our model of the metadata store to etcd's messages and back; pure."""

from __future__ import annotations

from typing import Any

from engine.etcd import messages as m
from p2pstore.metadata.rules import decode_key, encode_key, prefix_end
from p2pstore.metadata.store import (
    Absent,
    AbsentPrefix,
    Changed,
    Condition,
    KeyValue,
    Operation,
    Put,
    Removed,
    Unchanged,
)


def from_message(kv: Any) -> KeyValue:
    """Our form of etcd's KeyValue."""
    return KeyValue(
        key=decode_key(kv.key),
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease=kv.lease,
    )


def range_request(prefix: str, *, limit: int = 0, after: str = "", revision: int = 0) -> Any:
    """The request for the keys under a prefix that sort after ``after``."""
    start = encode_key(prefix)
    end = prefix_end(start)
    if after:
        start = max(start, encode_key(after) + b"\0")
    return m.RangeRequest(key=start or b"\0", range_end=end, limit=limit, revision=revision)


def to_compare(condition: Condition) -> Any:
    """A condition as etcd compares it."""
    if isinstance(condition, AbsentPrefix):
        # etcd compares every key of the range, or version 0 where there is none.
        start = encode_key(condition.prefix)
        return m.Compare(target=m.COMPARE_VERSION, version=0, key=start or b"\0", range_end=prefix_end(start))
    key = encode_key(condition.key)
    if isinstance(condition, Absent):
        return m.Compare(target=m.COMPARE_VERSION, version=0, key=key)
    if isinstance(condition, Unchanged):
        return m.Compare(target=m.COMPARE_MOD_REVISION, mod_revision=condition.mod_revision, key=key)
    return m.Compare(target=m.COMPARE_VALUE, value=condition.value, key=key)


def to_operation(op: Operation) -> Any:
    """An operation of a transaction."""
    key = encode_key(op.key)
    if isinstance(op, Put):
        return m.RequestOp(request_put=m.PutRequest(key=key, value=op.value, lease=op.lease))
    return m.RequestOp(request_delete_range=m.DeleteRangeRequest(key=key))


def from_event(event: Any) -> Changed | Removed:
    """What a watch reports."""
    if event.type == m.EVENT_DELETE:
        return Removed(decode_key(event.kv.key), event.kv.mod_revision)
    return Changed(from_message(event.kv))


def watch_request(prefix: str, start_revision: int) -> Any:
    """The request for the changes of a prefix from a revision on."""
    start = encode_key(prefix)
    create = m.WatchCreateRequest(key=start or b"\0", range_end=prefix_end(start), start_revision=start_revision)
    return m.WatchRequest(create_request=create)
