"""Users and passwords, against real servers with authentication enabled."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from engine.config import again
from engine.etcd.credentials import EtcdCredentials
from p2pstore.errors import MetadataRefused
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import Absent, Changed, Delete, Put, Removed, Snapshot
from tests.p2pstore.metadata.servers import EtcdServer, etcdctl
from tests.p2pstore.metadata.waiting import commit_until_it_works, following


@pytest.fixture(scope="module")
def guarded(shared_server: EtcdServer) -> EtcdServer:
    for command in (
        "user add root:toor",
        "role add root",
        "user grant-role root root",
        "role add mooncake",
        "role grant-permission mooncake --prefix=true readwrite mooncake/",
        "user add cake:secret",
        "user grant-role cake mooncake",
        "auth enable",
    ):
        etcdctl(shared_server, *command.split())
    return shared_server


async def test_the_right_password(guarded: EtcdServer) -> None:
    store = EtcdStore([guarded.endpoint], EtcdCredentials(user="cake", password="secret"))
    lease = await store.grant(30)
    assert await store.commit([Put("mooncake/a", b"1", lease)], [Absent("mooncake/a")]) is not None
    assert await store.keep_alive(lease) == 30
    async with aclosing(store.watch("mooncake/")) as events:
        snapshot = await following(events)
        assert isinstance(snapshot, Snapshot)
        assert len(snapshot.items) == 1
        await store.commit([Delete("mooncake/a")])
        assert isinstance(await following(events), Removed)
    await store.check()
    await store.close()


async def test_outside_our_permissions(guarded: EtcdServer) -> None:
    store = EtcdStore([guarded.endpoint], EtcdCredentials(user="cake", password="secret"))
    for call in (store.get("other"), store.commit([Put("other", b"")])):
        with pytest.raises(MetadataRefused, match="permission denied"):
            await call
    async with aclosing(store.watch("other/")) as events:
        with pytest.raises(MetadataRefused, match="permission denied"):
            await following(events)
    await store.close()


@pytest.mark.parametrize(("user", "password"), [("cake", "wrong"), ("nobody", "secret"), ("", ""), ("cake", "")])
async def test_wrong_or_no_credentials(guarded: EtcdServer, user: str, password: str) -> None:
    store = EtcdStore([guarded.endpoint], EtcdCredentials(user=user, password=password))
    for call in (store.check(), store.get("mooncake/a"), store.commit([Put("mooncake/a", b"")])):
        with pytest.raises(MetadataRefused) as caught:
            await call
        assert "secret" not in str(caught.value)
    async with aclosing(store.watch("mooncake/")) as events:
        with pytest.raises(MetadataRefused):
            await following(events)
    await store.close()


async def test_a_token_that_the_server_forgot(guarded: EtcdServer) -> None:
    store = EtcdStore([guarded.endpoint], EtcdCredentials(user="cake", password="secret"))
    await store.commit([Put("mooncake/a", b"1")])
    async with aclosing(store.watch("mooncake/")) as events:
        await following(events)
        # Simple tokens live in the server's memory only.
        guarded.end(signal.SIGKILL)
        guarded.start()
        await commit_until_it_works(store, Put("mooncake/a", b"2"))
        event = await following(events)
        assert isinstance(event, Changed)
        assert event.item.value == b"2"
    await store.close()


async def test_a_password_that_is_changed(guarded: EtcdServer, tmp_path: Path) -> None:
    """At the server first, and then in our file."""
    etcdctl(guarded, "--user", "root:toor", "user", "add", "pie:first")
    etcdctl(guarded, "--user", "root:toor", "user", "grant-role", "pie", "mooncake")
    file = tmp_path / "password"
    file.write_text("first\n")
    store = EtcdStore([guarded.endpoint], EtcdCredentials(user="pie", password="first", password_file=str(file)))
    await store.commit([Put("mooncake/b", b"1")])
    etcdctl(guarded, "--user", "root:toor", "user", "delete", "pie")
    etcdctl(guarded, "--user", "root:toor", "user", "add", "pie:second")
    etcdctl(guarded, "--user", "root:toor", "user", "grant-role", "pie", "mooncake")
    with pytest.raises(MetadataRefused):
        await store.commit([Put("mooncake/b", b"2")])
    file.write_text("second\n")
    await asyncio.sleep(again.LOOK_SECONDS)
    assert await store.commit([Put("mooncake/b", b"2")]) is not None
    await store.close()


async def test_a_user_where_the_server_knows_none(server: EtcdServer) -> None:
    store = EtcdStore([server.endpoint], EtcdCredentials(user="cake", password="secret"))
    assert await store.commit([Put("a", b"")]) is not None
    await store.close()
