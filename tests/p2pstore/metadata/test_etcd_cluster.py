"""A cluster of three real servers, of which one dies: another endpoint takes over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from pathlib import Path

import pytest

from p2pstore.metadata.store import Changed, Put, Snapshot
from p2pstore.metadata.urls import open_store
from tests.p2pstore.metadata.servers import EtcdServer, any_binary
from tests.p2pstore.metadata.waiting import WAIT, commit_until_it_works, following


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[EtcdServer]]:
    binary = any_binary()
    servers = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        servers.append(EtcdServer(binary, tmp_path / str(number)))
    cluster = ",".join(f"m{i}=http://127.0.0.1:{server.peer_port}" for i, server in enumerate(servers))
    for number, server in enumerate(servers):
        server.options = (f"--name=m{number}", f"--initial-cluster={cluster}")
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
        # None of them is ready before two are.
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(EtcdServer.start, servers))
        yield servers


async def test_a_watch_and_a_lease_outlive_the_member_that_served_them(members: list[EtcdServer]) -> None:
    store = open_store("etcd://" + ",".join(server.endpoint for server in members))
    async with aclosing(store.watch("w/")) as events:  # type: ignore[type-var]
        assert isinstance(await following(events), Snapshot)
        lease = await store.grant(600)
        await store.commit([Put("w/1", b"", lease)])
        assert isinstance(await following(events), Changed)
        served = (await store.check()).endpoint
        next(server for server in members if server.endpoint == served).end(signal.SIGKILL)
        revision = await commit_until_it_works(store, Put("w/2", b""))
        assert (await store.check()).endpoint != served
        # The history goes on: neither another snapshot nor an event twice.
        event = await following(events)
        assert isinstance(event, Changed)
        assert (event.item.key, event.item.mod_revision) == ("w/2", revision)

        async def renewed() -> None:
            while await store.keep_alive(lease) != 600:  # noqa: ASYNC110 - nothing tells us
                await asyncio.sleep(0.2)

        await asyncio.wait_for(renewed(), 2 * WAIT)  # else the lease was lost with the member
    await store.close()
