"""The metadata servers over which both sides meet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.engine import P2PHANDSHAKE
from engine.metadata.kept import Records
from engine.metadata.server import MetadataServer
from tests.p2pstore.metadata.servers import EtcdServer, any_binary


class HttpMetadata:
    """Our metadata server, in a thread of its own."""

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


@pytest.fixture(scope="session")
def http_metadata() -> Iterator[HttpMetadata]:
    server = HttpMetadata()
    yield server
    server.close()


@pytest.fixture(scope="session")
def etcd_metadata(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EtcdServer(any_binary(), Path(tmp_path_factory.mktemp("etcd"))).start()
    yield server.url
    server.close()


@pytest.fixture(scope="module", params=["P2PHANDSHAKE", "http", "etcd"])
def metadata(request: pytest.FixtureRequest) -> str:
    """The connection string that both sides are given."""
    if request.param == "http":
        return str(request.getfixturevalue("http_metadata").url)
    if request.param == "etcd":
        return str(request.getfixturevalue("etcd_metadata"))
    return P2PHANDSHAKE
