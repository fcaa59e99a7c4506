from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.p2pstore.metadata.servers import EtcdServer, need


@pytest.fixture(params=["3.4", "3.5"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdServer]:
    """A running etcd of each release."""
    etcd = EtcdServer(need(request.param), tmp_path).start()
    yield etcd
    etcd.close()


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """A running etcd of each release for all tests of a file, which leave it running."""
    etcd = EtcdServer(need(request.param), tmp_path_factory.mktemp("etcd")).start()
    yield etcd
    etcd.close()
