from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster, Etcd, make_file


@contextlib.contextmanager
def cluster_in(directory: Path) -> Iterator[Cluster]:
    made = Cluster(directory)
    try:
        yield made
    finally:
        made.close()
    assert made.defects() == []


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory on a tmpfs, where writing through a mapping changes no time."""
    if "/dev/shm tmpfs " not in Path("/proc/mounts").read_text():
        pytest.skip("needs a tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without a metadata server: each agent starts an etcd for itself."""
    with cluster_in(tmp_path / "cluster") as made:
        yield made


@pytest.fixture
def cluster(alone: Cluster, etcd: Etcd) -> Cluster:
    """A cluster of a test's own, with an etcd of its own."""
    return alone


@pytest.fixture
def etcd(alone: Cluster) -> Etcd:
    """The etcd of ``cluster``, for tests that disturb it."""
    return alone.etcd()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for all tests of a module, which use names and contents of their own."""
    with cluster_in(tmp_path_factory.mktemp("shared") / "cluster") as made:
        made.etcd()
        yield made


@pytest.fixture(scope="module")
def pair(shared: Cluster) -> tuple[Agent, Agent]:
    source, getter = shared.agents("source", "getter")
    return source, getter


@pytest.fixture(scope="module")
def source(pair: tuple[Agent, Agent]) -> Agent:
    return pair[0]


@pytest.fixture(scope="module")
def getter(pair: tuple[Agent, Agent]) -> Agent:
    return pair[1]


@pytest.fixture(scope="module")
def data(shared: Cluster, source: Agent) -> Path:
    """Some object, named "data"."""
    path = make_file(shared.path("data"), 4 << 20)
    source.ok("register", path, "--name", "data")
    return path
