"""Bytes on etcd's wire. Where etcd3 is installed, ``test_oracle`` compares every field with its generated code."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.etcd import messages as m

REVISIONS = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (m.RangeRequest(key=b"k", keys_only=True), "0a016b4001"),
        (m.PutRequest(key=b"k", value=b"v", lease=3), "0a016b1201761803"),
        (m.Compare(target=m.COMPARE_VERSION, key=b"k", version=0), "1a016b2000"),
        (m.Compare(target=m.COMPARE_MOD_REVISION, key=b"k", mod_revision=5), "10021a016b3005"),
        (m.Compare(target=m.COMPARE_VALUE, key=b"k", value=b"v"), "10031a016b3a0176"),
        (m.LeaseGrantRequest(TTL=10, ID=1), "080a1001"),
        (m.WatchRequest(progress_request=m.WatchProgressRequest()), "1a00"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_what_etcd_is_sent(message: Any, wire: str) -> None:
    assert message.SerializeToString().hex() == wire


@given(st.binary(), st.binary(), REVISIONS, REVISIONS)
def test_a_value_comes_back_as_it_was(key: bytes, value: bytes, revision: int, lease: int) -> None:
    sent = m.KeyValue(key=key, value=value, mod_revision=revision, lease=lease)
    got = m.KeyValue.FromString(sent.SerializeToString())
    assert (got.key, got.value, got.mod_revision, got.lease) == (key, value, revision, lease)


def test_one_operation_is_one_thing() -> None:
    operation = m.RequestOp(request_put=m.PutRequest(key=b"k"))
    operation.request_delete_range.key = b"k"
    assert operation.WhichOneof("request") == "request_delete_range"


def test_what_we_do_not_read_is_skipped() -> None:
    # A field 8, which etcd does not have today.
    wire = m.LeaseGrantResponse(ID=7).SerializeToString() + bytes.fromhex("4205") + b"later"
    assert m.LeaseGrantResponse.FromString(wire).ID == 7


def test_another_package_may_define_etcds_messages_in_the_same_process() -> None:
    code = (
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "import engine.etcd.messages\n"
        "file = descriptor_pb2.FileDescriptorProto(name='rpc.proto', package='etcdserverpb')\n"
        "file.message_type.add(name='PutRequest')\n"
        "descriptor_pool.Default().Add(file)\n"
        "print(descriptor_pool.Default().FindMessageTypeByName('etcdserverpb.PutRequest').full_name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("etcdserverpb.PutRequest\n", "")
