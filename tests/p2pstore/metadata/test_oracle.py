"""An independent client reads what we wrote: ``etcd3`` 0.12.0, whose generated code also checks our messages.

It imports on today's protobuf only when that runs in pure Python, so it has a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import Changed, Delete, Put, Removed, Snapshot
from tests.p2pstore.metadata.servers import EtcdServer
from tests.p2pstore.metadata.waiting import following

pytestmark = pytest.mark.skipif(find_spec("etcd3") is None, reason="no etcd3 here (pip install etcd3==0.12.0)")

READ = """
import etcd3, json, sys
client = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]), timeout=60)
rows = []
for value, meta in client.get_prefix("ours/", sort_order="ascend", sort_target="key"):
    lease = etcd3.Lease(meta.lease_id, 0, client).remaining_ttl if meta.lease_id else None
    rows.append([meta.key.decode(), value.hex(), meta.create_revision, meta.mod_revision, meta.version, lease])
print(json.dumps(rows))
"""

WRITE = """
import etcd3, sys
client = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]), timeout=60)
client.put("theirs/kept", b"\\x00\\xff", client.lease(600))
client.put("theirs/gone", b"")
client.delete("theirs/gone")
"""

COMPARE = """
import json
from etcd3.etcdrpc import kv_pb2, rpc_pb2
from engine.etcd import messages
# Theirs and ours live in one process: the names and the files do not clash.
theirs = {**kv_pb2.DESCRIPTOR.message_types_by_name, **rpc_pb2.DESCRIPTOR.message_types_by_name}
wrong, fields = [], 0
for name, cls in vars(messages).items():
    descriptor = getattr(cls, "DESCRIPTOR", None)
    if descriptor is None or not hasattr(descriptor, "fields"):
        continue
    for field in descriptor.fields:
        fields += 1
        other = theirs[name].fields_by_name.get(field.name)
        # An enum is a varint as our int32 is.
        alike = other is not None and other.number == field.number and (
            other.type == field.type or (other.type == other.TYPE_ENUM and field.type == field.TYPE_INT32)
        )
        union = lambda f: f.containing_oneof.name if f.containing_oneof else None
        if (name, field.name) in {("WatchRequest", "progress_request"), ("StatusResponse", "errors")}:
            continue  # of etcd 3.4; etcd3 was made from 3.3's definitions
        if not alike or union(other) != union(field):
            wrong.append([name, field.name])
print(json.dumps({"wrong": wrong, "fields": fields}))
"""


def run(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "GRPC_VERBOSITY": "NONE"}
    environment["PYTHONPATH"] = os.getcwd()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def their_view(shared_server: EtcdServer) -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(await asyncio.to_thread(run, READ, str(shared_server.port)))
    return rows


async def test_they_read_what_we_wrote(shared_server: EtcdServer) -> None:
    store = EtcdStore([shared_server.endpoint])
    lease = await store.grant(600)
    await store.commit([Put("ours/a", b"\x00\xff"), Put("ours/ä", b"", lease), Put("ours/gone", b"x")])
    await store.commit([Put("ours/a", b"2"), Delete("ours/gone")])
    items = (await store.scan("ours/")).items
    rows = await their_view(shared_server)
    assert [row[:5] for row in rows] == [
        [item.key, item.value.hex(), item.create_revision, item.mod_revision, item.version] for item in items
    ]
    assert [row[0] for row in rows] == ["ours/a", "ours/ä"]
    assert rows[0][5] is None
    assert 300 < rows[1][5] <= 600
    await store.close()


async def test_we_see_what_they_write(shared_server: EtcdServer) -> None:
    store = EtcdStore([shared_server.endpoint])
    events = store.watch("theirs/")
    assert isinstance(await following(events), Snapshot)
    await asyncio.to_thread(run, WRITE, str(shared_server.port))
    kept, gone, removed = [await following(events) for _ in range(3)]
    assert isinstance(kept, Changed)
    assert (kept.item.key, kept.item.value) == ("theirs/kept", b"\x00\xff")
    assert 300 < await store.time_left(kept.item.lease) <= 600
    assert isinstance(gone, Changed)
    assert isinstance(removed, Removed)
    assert removed.key == "theirs/gone"
    await events.aclose()  # type: ignore[attr-defined]
    await store.close()


def test_our_messages_are_theirs_field_by_field() -> None:
    result = json.loads(run(COMPARE))
    assert result["wrong"] == []
    assert result["fields"] > 60
