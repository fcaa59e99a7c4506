"""Segments in every metadata server there is: real etcd, real Redis, and our HTTP server."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config.settings import EngineSettings
from engine.engine import TransferEngine
from engine.errors import MetadataRefused, MetadataUnavailable, RemoteProtocolError, SegmentNotFound
from engine.metadata.base import KeyValueStore
from engine.metadata.kept import Records
from engine.metadata.server import MetadataServer
from engine.metadata.urls import open_store
from tests.p2pstore.metadata.servers import EtcdServer, any_binary
from tests.ports import closed_port, reserved_port

PLAIN = EngineSettings()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EtcdServer(any_binary(), tmp_path_factory.mktemp("etcd")).start()
    yield server.url
    server.close()


class RedisServer:
    """A real redis-server on loopback, in memory only."""

    def __init__(self, *options: str) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("NO REDIS TEST: there is no redis-server here (apt-get install redis-server)")
        pytest.importorskip("redis", reason="NO REDIS TEST: the package redis is not installed")
        self.port = reserved_port()
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    server = RedisServer()
    yield server.url
    server.close()


class HttpServer:
    """Our metadata server in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.records = Records()
        self._server = MetadataServer(self.records)
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(60)
        self.url = self._server.url

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    server = HttpServer()
    yield server.url
    server.close()


@pytest.fixture(params=["etcd", "redis", "http"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(url: str) -> Iterator[KeyValueStore]:
    made = open_store(url, PLAIN)
    yield made
    made.close()
    made.close()


def test_values(store: KeyValueStore) -> None:
    assert store.get("test/a b+/ü") is None
    store.delete("test/a b+/ü")
    for value in (b"\x00\xff\n", b"", b"x" * 1_000_000):
        store.put("test/a b+/ü", value)
        assert store.get("test/a b+/ü") == value
    store.delete("test/a b+/ü")
    assert store.get("test/a b+/ü") is None


@pytest.mark.parametrize("cluster", ["", "blue"])
def test_an_engine_publishes_what_upstream_would(url: str, store: KeyValueStore, cluster: str) -> None:
    settings = EngineSettings(cluster=cluster)
    prefix = f"mooncake/{cluster}/" if cluster else "mooncake/"
    with (
        TransferEngine("127.0.0.1:12345", url, settings=settings) as target,
        TransferEngine("127.0.0.1:54321", url, settings=settings) as initiator,
    ):
        assert target.segment_name == "127.0.0.1:12345"
        memory = target.register_memory(bytearray(b"metadata"), name="m", writable=True)
        rpc = json.loads(store.get(f"{prefix}rpc_meta/127.0.0.1:12345") or b"")
        assert rpc == {"ip_or_host_name": "127.0.0.1", "rpc_port": target.rpc_port}
        described = json.loads(store.get(f"{prefix}ram/127.0.0.1:12345") or b"")
        assert described["buffers"] == [{"name": "m", "addr": memory.address, "length": 8}]
        assert (described["protocol"], described["tcp_data_port"]) == ("tcp", target.data_port)
        segment = initiator.open_segment("127.0.0.1:12345")
        got = bytearray(8)
        initiator.read(got, segment, segment.buffers[0].address)
        assert got == b"metadata"
        initiator.write(b"METADATA", segment, segment.buffers[0].address)
        initiator.notify(segment, "done", "8 bytes")
        assert target.notifications() == [("done", "8 bytes")]
        assert initiator.probe(segment) > 0
        target.unregister_memory(memory)
        assert segment.refresh().buffers == ()
        with pytest.raises(SegmentNotFound):
            initiator.open_segment("nobody")
    assert store.get(f"{prefix}rpc_meta/127.0.0.1:12345") is None
    assert store.get(f"{prefix}ram/127.0.0.1:12345") is None


def test_a_restarted_engine_takes_its_name_over(url: str) -> None:
    crashed = TransferEngine("127.0.0.1:7", url)
    with TransferEngine("127.0.0.1:7", url) as again, TransferEngine("127.0.0.1:8", url) as other:
        memory = again.register_memory(b"new")
        got = bytearray(3)
        other.read(got, other.open_segment("127.0.0.1:7"), memory.address)
        assert got == b"new"
    crashed.close()


@pytest.mark.parametrize("value", [b"", b"[]", b"{", b'{"name": 3}', b"\xff", b"[" * 100_000])
def test_foreign_records_are_a_peers_fault(http: str, value: bytes) -> None:
    store = open_store(http, PLAIN)
    store.put("mooncake/ram/odd", value)
    store.put("mooncake/rpc_meta/odd", value)
    with TransferEngine("127.0.0.1:9", http) as engine:
        with pytest.raises(RemoteProtocolError):
            engine.open_segment("odd")
        with pytest.raises(RemoteProtocolError):
            engine.probe("odd")
    store.close()


@pytest.mark.parametrize("scheme", ["http://127.0.0.1:{}/metadata", "redis://127.0.0.1:{}", "etcd://127.0.0.1:{}"])
def test_a_server_that_is_not_there(scheme: str) -> None:
    if scheme.startswith("redis"):
        pytest.importorskip("redis")
    with pytest.raises(MetadataUnavailable):
        TransferEngine("127.0.0.1", scheme.format(closed_port()))


def test_redis_with_user_password_and_database(monkeypatch: pytest.MonkeyPatch) -> None:
    server = RedisServer(
        "--user", "cake", "on", ">secret", "~mooncake/*", "+@all", "--user", "default", "off"
    )  # fmt: skip
    try:
        with pytest.raises(MetadataRefused):
            TransferEngine("127.0.0.1:1", server.url, settings=EngineSettings.load({}))
        environment = {"MC_REDIS_USERNAME": "cake", "MC_REDIS_PASSWORD": "secret", "MC_REDIS_DB_INDEX": "3"}
        known = EngineSettings.load(environment)
        with TransferEngine("127.0.0.1:1", server.url, settings=known) as engine:
            assert engine.open_segment("127.0.0.1:1").buffers == ()
            store = open_store(server.url, known)
            assert store.get("mooncake/ram/127.0.0.1:1") is not None
            with pytest.raises(MetadataRefused):
                store.get("elsewhere")
            store.close()
            other = open_store(server.url, EngineSettings.load({**environment, "MC_REDIS_DB_INDEX": "0"}))
            assert other.get("mooncake/ram/127.0.0.1:1") is None
            other.close()
        with pytest.raises(MetadataRefused):
            TransferEngine(
                "127.0.0.1:1", server.url, settings=EngineSettings.load({**environment, "MC_REDIS_PASSWORD": "no"})
            )
    finally:
        server.close()


def test_a_plain_name_needs_no_directory(tmp_path: Path) -> None:
    with TransferEngine("127.0.0.1") as engine:
        assert engine.segment_name == f"127.0.0.1:{engine.rpc_port}"
