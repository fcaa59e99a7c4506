"""TLS in both directions, against real servers that ask for client certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trustme

from engine.etcd.credentials import EtcdCredentials
from p2pstore.errors import BadConfig, MetadataRefused, MetadataUnavailable
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import Changed, Put, Snapshot
from p2pstore.metadata.urls import open_store
from tests.p2pstore.metadata.servers import EtcdServer, need
from tests.p2pstore.metadata.waiting import commit_until_it_works, following


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue(tmp_path_factory.mktemp("pki"))


def issue(directory: Path) -> Path:
    """Certificates of two authorities, in place of those that are there."""
    for name in ("ca", "stranger"):
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(directory / f"{name}.pem"))
        for role, host in (("server", "127.0.0.1"), ("client", "client.example"), ("elsewhere", "other.example")):
            cert = ca.issue_cert(host)
            cert.private_key_pem.write_to_path(str(directory / f"{name}-{role}.key"))
            (directory / f"{name}-{role}.crt").write_bytes(b"".join(p.bytes() for p in cert.cert_chain_pems))
    return directory


def options(pki: Path, role: str = "server") -> list[str]:
    return [
        f"--cert-file={pki}/ca-{role}.crt",
        f"--key-file={pki}/ca-{role}.key",
        f"--trusted-ca-file={pki}/ca.pem",
        "--client-cert-auth",
    ]


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def secure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[EtcdServer]:
    etcd = EtcdServer(need(request.param), tmp_path_factory.mktemp("etcd"), *options(pki), tls=True).start()
    yield etcd
    etcd.close()


def us(pki: Path, name: str = "ca", trusting: str = "ca") -> EtcdCredentials:
    return EtcdCredentials(ca=f"{pki}/{trusting}.pem", cert=f"{pki}/{name}-client.crt", key=f"{pki}/{name}-client.key")


async def test_both_sides_show_good_certificates(secure: EtcdServer, pki: Path) -> None:
    store = open_store(secure.url, us(pki))
    assert store.url == secure.url
    assert store.url.startswith("etcds://")
    assert await store.commit([Put("a", b"1")]) is not None
    async with aclosing(store.watch("a")) as events:  # type: ignore[type-var]
        assert isinstance(await following(events), Snapshot)
    await store.check()
    await store.close()


async def test_bad_certificates_are_refused(secure: EtcdServer, pki: Path) -> None:
    for credentials in (
        EtcdCredentials(ca=f"{pki}/ca.pem"),
        us(pki, name="stranger"),
        us(pki, trusting="stranger"),
    ):
        store = EtcdStore([secure.endpoint], credentials, tls=True)
        with pytest.raises(MetadataRefused):
            await store.get("a")
        async with aclosing(store.watch("a")) as events:
            with pytest.raises(MetadataRefused):
                await following(events)
        await store.close()


async def test_a_server_with_another_hosts_certificate(tmp_path: Path, pki: Path) -> None:
    server = EtcdServer(need("3.5"), tmp_path, *options(pki, "elsewhere"), tls=True).start()
    store = EtcdStore([server.endpoint], us(pki), tls=True)
    try:
        with pytest.raises(MetadataRefused):
            await store.get("a")
    finally:
        await store.close()
        server.close()


async def test_tls_to_a_server_without(shared_server: EtcdServer, pki: Path) -> None:
    store = EtcdStore([shared_server.endpoint], us(pki), tls=True)
    with pytest.raises((MetadataUnavailable, MetadataRefused)):
        await store.get("a")
    await store.close()


async def test_no_tls_to_a_server_with(secure: EtcdServer) -> None:
    store = EtcdStore([secure.endpoint])
    with pytest.raises(MetadataUnavailable, match="etcds://"):
        await store.get("a")
    await store.close()


async def test_files_that_are_not_there(secure: EtcdServer, pki: Path) -> None:
    for credentials in (
        EtcdCredentials(ca="/nonexistent/ca.pem"),
        EtcdCredentials(ca=f"{pki}/ca.pem", cert="/nonexistent/cert", key=f"{pki}/ca-client.key"),
    ):
        store = EtcdStore([secure.endpoint], credentials, tls=True)
        with pytest.raises(BadConfig, match="/nonexistent/"):
            await store.get("a")
        await store.close()


async def test_renewed_certificates_are_taken_as_they_come(tmp_path: Path) -> None:
    """New ones under the old names, of another authority, and a server that takes no others from then on."""
    pki = issue(tmp_path)
    server = EtcdServer(need("3.5"), tmp_path, *options(pki), tls=True).start()
    store = EtcdStore([server.endpoint], us(pki), tls=True)
    try:
        await store.commit([Put("a", b"1")])
        async with aclosing(store.watch("a")) as events:
            assert isinstance(await following(events), Snapshot)
            issue(pki)
            await store.commit([Put("a", b"2")])  # on the connection that stands
            assert isinstance(await following(events), Changed)
            server.end()
            server.start()
            await commit_until_it_works(store, Put("a", b"3"))
            event = await following(events)
            assert isinstance(event, Changed)
            assert event.item.value == b"3"
    finally:
        await store.close()
        server.close()
