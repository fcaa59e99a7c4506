"""The messages of etcd's v3 API that we use, built at import; no generated code.

They live in a ``DescriptorPool`` of our own under a file name of our own, so that they neither need a certain protobuf
(4.25 to 7 work) nor clash with another package that defines ``etcdserverpb``. Fields that we never read are left out:
protobuf skips what it does not know.

Source: etcd's ``api/mvccpb/kv.proto`` and ``api/etcdserverpb/rpc.proto``, release 3.4 (names, numbers and types).
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "engine.etcd.v3"
_FILE = "engine/etcd/messages.proto"

# Message name -> field name -> "type number" with "[]" for repeated and "@oneof" for a member of a oneof.
# A type that is no scalar names another message of this table.
_MESSAGES: dict[str, dict[str, str]] = {
    "KeyValue": {
        "key": "bytes 1",
        "create_revision": "int64 2",
        "mod_revision": "int64 3",
        "version": "int64 4",
        "value": "bytes 5",
        "lease": "int64 6",
    },
    "Event": {"type": "int32 1", "kv": "KeyValue 2"},
    "ResponseHeader": {
        "cluster_id": "uint64 1",
        "member_id": "uint64 2",
        "revision": "int64 3",
        "raft_term": "uint64 4",
    },
    "RangeRequest": {
        "key": "bytes 1",
        "range_end": "bytes 2",
        "limit": "int64 3",
        "revision": "int64 4",
        "keys_only": "bool 8",
        "count_only": "bool 9",
    },
    "RangeResponse": {"header": "ResponseHeader 1", "kvs": "KeyValue[] 2", "more": "bool 3", "count": "int64 4"},
    "PutRequest": {"key": "bytes 1", "value": "bytes 2", "lease": "int64 3"},
    "DeleteRangeRequest": {"key": "bytes 1", "range_end": "bytes 2"},
    "DeleteRangeResponse": {"header": "ResponseHeader 1", "deleted": "int64 2"},
    "RequestOp": {
        "request_range": "RangeRequest 1 @request",
        "request_put": "PutRequest 2 @request",
        "request_delete_range": "DeleteRangeRequest 3 @request",
    },
    "ResponseOp": {"response_range": "RangeResponse 1 @response"},
    "Compare": {
        "result": "int32 1",
        "target": "int32 2",
        "key": "bytes 3",
        "version": "int64 4 @target_union",
        "mod_revision": "int64 6 @target_union",
        "value": "bytes 7 @target_union",
        "range_end": "bytes 64",
    },
    "TxnRequest": {"compare": "Compare[] 1", "success": "RequestOp[] 2"},
    "TxnResponse": {"header": "ResponseHeader 1", "succeeded": "bool 2", "responses": "ResponseOp[] 3"},
    "WatchCreateRequest": {"key": "bytes 1", "range_end": "bytes 2", "start_revision": "int64 3"},
    "WatchProgressRequest": {},
    "WatchRequest": {
        "create_request": "WatchCreateRequest 1 @request_union",
        "progress_request": "WatchProgressRequest 3 @request_union",
    },
    "WatchResponse": {
        "header": "ResponseHeader 1",
        "watch_id": "int64 2",
        "created": "bool 3",
        "canceled": "bool 4",
        "compact_revision": "int64 5",
        "cancel_reason": "string 6",
        "events": "Event[] 11",
    },
    "LeaseGrantRequest": {"TTL": "int64 1", "ID": "int64 2"},
    "LeaseGrantResponse": {"header": "ResponseHeader 1", "ID": "int64 2", "TTL": "int64 3", "error": "string 4"},
    "LeaseRevokeRequest": {"ID": "int64 1"},
    "LeaseRevokeResponse": {"header": "ResponseHeader 1"},
    "LeaseKeepAliveRequest": {"ID": "int64 1"},
    "LeaseKeepAliveResponse": {"header": "ResponseHeader 1", "ID": "int64 2", "TTL": "int64 3"},
    "LeaseTimeToLiveRequest": {"ID": "int64 1"},
    "LeaseTimeToLiveResponse": {"header": "ResponseHeader 1", "ID": "int64 2", "TTL": "int64 3"},
    "StatusRequest": {},
    "StatusResponse": {
        "header": "ResponseHeader 1",
        "version": "string 2",
        "dbSize": "int64 3",
        "leader": "uint64 4",
        "errors": "string[] 8",
    },
    "AuthenticateRequest": {"name": "string 1", "password": "string 2"},
    "AuthenticateResponse": {"header": "ResponseHeader 1", "token": "string 2"},
}

# etcd's enums travel as varints, as int32 does; Compare.CompareResult is only ever EQUAL = 0, proto3's default.
COMPARE_VERSION = 0
COMPARE_MOD_REVISION = 2
COMPARE_VALUE = 3
EVENT_DELETE = 1


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        unions: list[str] = []
        for field_name, text in fields.items():
            kind, number, *union = text.split()
            field = message.field.add(name=field_name, number=int(number))
            repeated = kind.endswith("[]")
            kind = kind.removesuffix("[]")
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            else:
                field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
            if union:
                oneof = union[0].removeprefix("@")
                if oneof not in unions:
                    unions.append(oneof)
                    message.oneof_decl.add(name=oneof)
                field.oneof_index = unions.index(oneof)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())  # type: ignore[no-untyped-call,unused-ignore]


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


KeyValue = _message("KeyValue")
RangeRequest = _message("RangeRequest")
RangeResponse = _message("RangeResponse")
PutRequest = _message("PutRequest")
DeleteRangeRequest = _message("DeleteRangeRequest")
DeleteRangeResponse = _message("DeleteRangeResponse")
RequestOp = _message("RequestOp")
Compare = _message("Compare")
TxnRequest = _message("TxnRequest")
TxnResponse = _message("TxnResponse")
WatchCreateRequest = _message("WatchCreateRequest")
WatchProgressRequest = _message("WatchProgressRequest")
WatchRequest = _message("WatchRequest")
WatchResponse = _message("WatchResponse")
LeaseGrantRequest = _message("LeaseGrantRequest")
LeaseGrantResponse = _message("LeaseGrantResponse")
LeaseRevokeRequest = _message("LeaseRevokeRequest")
LeaseRevokeResponse = _message("LeaseRevokeResponse")
LeaseKeepAliveRequest = _message("LeaseKeepAliveRequest")
LeaseKeepAliveResponse = _message("LeaseKeepAliveResponse")
LeaseTimeToLiveRequest = _message("LeaseTimeToLiveRequest")
LeaseTimeToLiveResponse = _message("LeaseTimeToLiveResponse")
StatusRequest = _message("StatusRequest")
StatusResponse = _message("StatusResponse")
AuthenticateRequest = _message("AuthenticateRequest")
AuthenticateResponse = _message("AuthenticateResponse")
