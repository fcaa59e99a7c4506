"""``etcd inspect`` and ``etcd gc`` on the records of real Mooncake processes: alive, killed, and started again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore.inspect import collect_url, inspect_url
from p2pstore.metadata.store import Put
from p2pstore.metadata.urls import open_store
from tests.interop.wheels import OLD, wheel
from tests.p2pstore.metadata.servers import EtcdServer, any_binary

HERE = Path(__file__).parent
KNOWN_SECONDS = 60
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(any_binary(), tmp_path).start()
    yield server
    server.close()


@pytest.fixture(params=["newest", OLD])
def start(request: pytest.FixtureRequest, etcd: EtcdServer) -> Iterator[Start]:
    """Starts a real engine of a name, and waits until its records are there."""
    running: list[subprocess.Popen[str]] = []
    installed = wheel(request.param)

    def run(name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "etcd_peer.py"), name, etcd.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **installed.environment},
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready":
                return process
        pytest.fail(f"the real engine ended with {process.wait()}")

    yield run
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def states(etcd: EtcdServer) -> dict[str, str]:
    """As they are told once each is known: who stands still for some seconds does not answer in time."""
    deadline = time.monotonic() + KNOWN_SECONDS
    while True:
        tree = inspect_url(etcd.url, probe=True)
        assert not any("malformed" in entry for entry in tree["upstream"])
        found = {entry["key"]: entry["state"] for entry in tree["upstream"]}
        if set(found.values()) <= {"alive", "stale"} or time.monotonic() > deadline:
            return found


def keys(rows: list[dict[str, Any]]) -> set[str]:
    return {row["key"] for row in rows}


def records(name: str) -> set[str]:
    return {f"mooncake/ram/{name}", f"mooncake/rpc_meta/{name}"}


def test_the_living_stay_and_the_killed_go(etcd: EtcdServer, start: Start) -> None:
    start("alive-node")
    killed, again = start("killed-node"), start("restarted-node")
    assert set(states(etcd).values()) == {"alive"}
    for process in (killed, again):
        process.kill()
        process.wait()
    start("restarted-node")
    asyncio.run(_publish(etcd, "half", ["alive-node", "killed-node"]))
    asyncio.run(_publish(etcd, "lost", ["killed-node"]))
    stale = {*records("killed-node"), "mooncake/checkpoint/lost"}
    found = states(etcd)
    assert {key for key, state in found.items() if state == "stale"} == stale
    assert {state for key, state in found.items() if key not in stale} == {"alive"}
    dry = collect_url(etcd.url)
    assert (keys(dry["stale"]), dry["dry_run"], dry["unreachable"]) == (stale, True, [])
    assert set(states(etcd)) == set(found)
    done = collect_url(etcd.url, act=True)
    assert (keys(done["removed"]), done["changed"]) == (stale, [])
    assert set(states(etcd)) == {
        *records("alive-node"), *records("restarted-node"), "mooncake/checkpoint/half",
    }  # fmt: skip


async def _publish(etcd: EtcdServer, name: str, segments: list[str]) -> None:
    """A record as upstream's P2P Store writes it."""
    locations = [{"segment_name": segment, "offset": 4096} for segment in segments]
    shard = {"size": 1 << 20, "gold": locations[:1], "replica_list": locations[1:] or None}
    value = {"name": name, "size": 1 << 20, "size_list": [1 << 20], "max_shard_size": 64 << 20, "shards": [shard]}
    store = open_store(etcd.url)
    await store.commit([Put(f"mooncake/checkpoint/{name}", json.dumps(value).encode())])
    await store.close()
