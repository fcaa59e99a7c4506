"""Endpoints that are dead, mute or absent; on real servers."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import aclosing

import pytest

from engine.etcd import client as etcd_client
from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import Absent, Put, Snapshot
from p2pstore.metadata.urls import open_store
from tests.p2pstore.metadata.servers import EtcdServer
from tests.p2pstore.metadata.waiting import following
from tests.ports import closed_port


async def test_the_first_endpoint_is_dead(shared_server: EtcdServer) -> None:
    store = open_store(f"etcd://127.0.0.1:{closed_port()},{shared_server.endpoint}")
    assert await store.commit([Put("a", b"1")], [Absent("a")]) is not None
    assert (await store.check()).endpoint == shared_server.endpoint
    lease = await store.grant(30)
    assert await store.keep_alive(lease) == 30
    async with aclosing(store.watch("a")) as events:  # type: ignore[type-var]
        assert isinstance(await following(events), Snapshot)
    await store.close()


async def test_the_first_endpoint_accepts_and_says_nothing(
    shared_server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_client, "CONNECT_TIMEOUT", 0.5)
    mute = socket.create_server(("127.0.0.1", 0))
    port = mute.getsockname()[1]
    store = EtcdStore([f"127.0.0.1:{port}", shared_server.endpoint])
    # A write must not be lost or made twice because a server is mute.
    assert await store.commit([Put("mute", b"1")], [Absent("mute")]) is not None
    await store.close()
    mute.close()


async def test_no_endpoint_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_client, "RETRY_WINDOW", 0.2)
    store = EtcdStore([f"127.0.0.1:{closed_port()}", f"127.0.0.1:{closed_port()}"])
    for call in (
        store.get("a"),
        store.scan("a"),
        store.commit([Put("a", b"")]),
        store.grant(5),
        store.keep_alive(7),
        store.time_left(7),
        store.revoke(7),
        store.check(),
    ):
        with pytest.raises(MetadataUnavailable, match=r"Connection refused|Socket closed|reset by peer"):
            await call
    await store.close()


def test_grpc_leaves_stderr_alone() -> None:
    code = (
        "import asyncio\n"
        "from p2pstore.metadata.etcd import EtcdStore\n"
        "from p2pstore.errors import MetadataUnavailable\n"
        "async def main():\n"
        f"    store = EtcdStore(['127.0.0.1:{closed_port()}'])\n"
        "    try:\n"
        "        await store.get('a')\n"
        "    except MetadataUnavailable:\n"
        "        print('refused')\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("refused\n", "")
