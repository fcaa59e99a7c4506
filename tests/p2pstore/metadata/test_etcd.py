"""The etcd store at etcd's limits, on real servers."""

from __future__ import annotations

import signal

import pytest

from p2pstore.errors import UsageError
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import LeaseLost, Put
from tests.p2pstore.metadata.servers import EtcdServer
from tests.p2pstore.metadata.waiting import commit_until_it_works


async def test_a_request_that_is_too_large(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint])
    with pytest.raises(UsageError, match=r"too large|larger than max"):
        await store.commit([Put("a", bytes(2 << 20))])
    await store.close()


async def test_large_values_come_back(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint])
    for number in range(8):
        await store.commit([Put(f"big/{number}", bytes([number]) * (1 << 20))])
    page = await store.scan("big/")
    assert [len(item.value) for item in page.items] == [1 << 20] * 8
    await store.close()


async def test_a_lease_does_not_survive_a_wipe(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint])
    lease = await store.grant(60)
    await store.commit([Put("a", b"", lease)])
    server.end(signal.SIGKILL)
    server.wipe()
    server.start()
    await commit_until_it_works(store, Put("b", b""))
    assert await store.keep_alive(lease) == 0
    with pytest.raises(LeaseLost):
        await store.commit([Put("a", b"", lease)])
    await store.close()
