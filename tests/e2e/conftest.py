from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster
from tests.p2pstore.metadata.servers import EtcdServer, any_binary


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One etcd for every cluster that does not disturb it."""
    server = EtcdServer(any_binary(), tmp_path_factory.mktemp("etcd"))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that a test may kill."""
    directory = tmp_path / "etcd"
    directory.mkdir()
    server = EtcdServer(any_binary(), directory)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def cluster(tmp_path: Path, etcd: EtcdServer) -> Iterator[Cluster]:
    """A cluster of a test's own, on the shared etcd."""
    made = Cluster(tmp_path / "cluster", etcd.url)
    yield made
    made.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without a metadata server: each agent starts an etcd of its own."""
    made = Cluster(tmp_path / "cluster")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[Cluster]:
    """A cluster for all tests of a module, on the shared etcd."""
    made = Cluster(tmp_path_factory.mktemp("shared"), etcd.url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def source(shared: Cluster) -> Agent:
    return shared.agent("source")


@pytest.fixture(scope="module")
def getter(shared: Cluster) -> Agent:
    return shared.agent("getter")

