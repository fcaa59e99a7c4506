"""A watch through every kind of outage: real servers, killed, stopped, wiped, compacted."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from engine.etcd import client as etcd_client
from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata import etcd_watch
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import Changed, Put, Snapshot
from tests.p2pstore.metadata.servers import EtcdServer, etcdctl, need
from tests.p2pstore.metadata.waiting import WAIT, commit_until_it_works, following
from tests.ports import reserved_port


async def test_a_watch_resumes_after_the_server_was_killed(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint])
    other = EtcdStore([server.endpoint])
    async with aclosing(store.watch("w/")) as events:
        assert isinstance(await following(events), Snapshot)
        first = await other.commit([Put("w/1", b"1")])
        assert isinstance(await following(events), Changed)
        server.end(signal.SIGKILL)
        with pytest.raises(MetadataUnavailable, match="does not answer"):
            await other.get("w/1")
        server.start()
        second = await commit_until_it_works(other, Put("w/2", b"2"))
        # Resumed by revision: no second snapshot, nothing told twice.
        event = await following(events)
        assert isinstance(event, Changed)
        assert event.item.key == "w/2"
        assert event.item.mod_revision == second
        assert first is not None
        assert second == first + 1
    await store.close()
    await other.close()


async def test_a_wiped_store_makes_another_snapshot(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint])
    other = EtcdStore([server.endpoint])
    for number in range(3):
        await other.commit([Put(f"w/old{number}", b"")])
    async with aclosing(store.watch("w/")) as events:
        snapshot = await following(events)
        assert isinstance(snapshot, Snapshot)
        assert len(snapshot.items) == 3
        server.end(signal.SIGKILL)
        server.wipe()
        server.start()
        event = await following(events)
        assert isinstance(event, Snapshot)
        assert event.items == ()
        await commit_until_it_works(other, Put("w/new", b""))
        event = await following(events)
        assert isinstance(event, Changed)
        assert event.item.key == "w/new"
    await store.close()
    await other.close()


async def test_a_wiped_store_that_wrote_more_than_we_saw_is_noticed(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint])
    other = EtcdStore([server.endpoint])
    async with aclosing(store.watch("w/")) as events:
        await following(events)
        server.end(signal.SIGKILL)
        # Its Raft term grows with every start: it tells this history from the one that begins below.
        server.start()
        await commit_until_it_works(other, Put("w/seen", b""))
        assert isinstance(await following(events), Changed), "the watch has come back, and knows this term"
        following_event = asyncio.ensure_future(events.__anext__())
        server.end(signal.SIGKILL)
        server.wipe()
        server.start()
        for number in range(5):
            etcdctl(server, "put", f"w/new{number}", "x")
        assert isinstance(await asyncio.wait_for(following_event, WAIT), Snapshot)
    await store.close()
    await other.close()


async def test_compaction_during_an_outage_makes_another_snapshot(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint])
    async with aclosing(store.watch("w/")) as events:
        snapshot = await following(events)
        assert isinstance(snapshot, Snapshot)
        server.signal(signal.SIGSTOP)
        server.end(signal.SIGKILL)
        # The watch must not reconnect before the history is gone: come back on another port first.
        port, server.port = server.port, reserved_port()
        server.start()
        for number in range(5):
            etcdctl(server, "put", "w/1", str(number))
        etcdctl(server, "del", "w/1")
        last = etcdctl(server, "put", "w/2", "x", "-w", "json")
        revision = int(last.partition('"revision":')[2].partition(",")[0])
        etcdctl(server, "compact", str(revision))
        server.end(signal.SIGTERM)
        server.port = port
        server.start()
        event = await following(events)
        assert isinstance(event, Snapshot)
        assert [item.key for item in event.items] == ["w/2"]
        assert event.revision == revision
    await store.close()


async def test_a_server_that_falls_silent_is_found_out(server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_watch, "QUIET_LIMIT", 0.5)
    monkeypatch.setattr(etcd_watch, "PROGRESS_TIMEOUT", 0.5)
    monkeypatch.setattr(etcd_client, "ATTEMPT_TIMEOUT", 0.5)
    store = EtcdStore([server.endpoint])
    async with aclosing(store.watch("w/")) as events:
        await following(events)
        event_task = asyncio.ensure_future(events.__anext__())
        await asyncio.sleep(2)
        assert not event_task.done(), "progress requests are answered, and are no events"
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(2)
        server.signal(signal.SIGCONT)
        other = EtcdStore([server.endpoint])
        await commit_until_it_works(other, Put("w/1", b""))
        event = await asyncio.wait_for(event_task, WAIT)
        assert isinstance(event, Changed)
        assert event.item.key == "w/1"
        await other.close()
    await store.close()


async def test_a_watch_that_begins_before_its_server(tmp_path: Path) -> None:
    server = EtcdServer(need("3.5"), tmp_path)
    store = EtcdStore([server.endpoint])
    async with aclosing(store.watch("w/")) as events:
        first = asyncio.ensure_future(events.__anext__())
        await asyncio.sleep(1.5)
        assert not first.done()
        server.start()
        assert isinstance(await asyncio.wait_for(first, WAIT), Snapshot)
    await store.close()
    server.close()
