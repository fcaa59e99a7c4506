"""Masters, and clients in this process and in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pstore.kv.client.store import Store
from tests.p2pstore.kv.client.masters import RealMaster
from tests.p2pstore.kv.client.peers import Peer

SEGMENT = 32 << 20

MakeStore = Callable[..., Store]
MakePeer = Callable[..., Peer]


@pytest.fixture(scope="session")
def _shared_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMaster]:
    made = RealMaster(tmp_path_factory.mktemp("master") / "log")
    yield made
    made.kill()


@pytest.fixture
def master(_shared_master: RealMaster) -> str:
    """The address of a master that tests share: each uses keys of its own, and ends the clients that it made."""
    return _shared_master.address


@pytest.fixture
def own_master(tmp_path: Path) -> Iterator[RealMaster]:
    """A master that the test may end; it forgets a dead client after three seconds, and leases are short."""
    made = RealMaster(tmp_path / "master.log", "--client_ttl=3", "--default_kv_lease_ttl=500")
    yield made
    made.kill()


@pytest.fixture
def make_store(master: str) -> Iterator[MakeStore]:
    """Makes clients in this process, which are closed at the end."""
    made: list[Store] = []

    def make(address: str = "", **options: object) -> Store:
        store = Store(address or master, **{"segment_size": SEGMENT, **options})  # type: ignore[arg-type]
        made.append(store)
        return store

    yield make
    for store in reversed(made):
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()


@pytest.fixture
def make_peer(master: str) -> Iterator[MakePeer]:
    """Makes clients in processes of their own, which are ended at the end."""
    made: list[Peer] = []

    def make(address: str = "", **options: object) -> Peer:
        peer = Peer(address or master, **{"segment_size": SEGMENT, **options})
        made.append(peer)
        return peer

    yield make
    for peer in reversed(made):
        peer.close()
