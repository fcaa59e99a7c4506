"""Masters, and clients in this process and in others."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from p2pstore.kv.client.compat import MooncakeDistributedStore
from p2pstore.kv.client.store import Store
from tests.p2pstore.kv.client.masters import AMaster, OurMaster, RealMaster
from tests.p2pstore.kv.client.peers import Peer

SEGMENT = 32 << 20

MakeStore = Callable[..., Store]
MakePeer = Callable[..., Peer]

_numbers = count()


class Room:
    """Memory with an address."""

    def __init__(self, size: int) -> None:
        self.data = (ctypes.c_ubyte * size)()
        self.ptr = ctypes.addressof(self.data)

    def __bytes__(self) -> bytes:
        return bytes(self.data)


@pytest.fixture
def key() -> str:
    """One that no other test has: a master is shared."""
    return f"test-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(scope="session", params=["our master", "the real master"])
def _shared_master(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AMaster]:
    log = tmp_path_factory.mktemp("master") / "log"
    made: AMaster = OurMaster(log) if request.param == "our master" else RealMaster(log)
    yield made
    made.kill()


@pytest.fixture
def master(_shared_master: AMaster) -> str:
    """The address of a master that tests share: each uses keys of its own, and ends the clients that it made."""
    return _shared_master.address


@pytest.fixture(params=["our master", "the real master"])
def own_master(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AMaster]:
    """A master that the test may end; it forgets a dead client after ten seconds, and leases are short."""
    log = tmp_path / "master.log"
    made: AMaster
    if request.param == "our master":
        made = OurMaster(log, client_ttl=10.0, lease_ms=500)
    else:
        made = RealMaster(log, "--client_ttl=10", "--default_kv_lease_ttl=500")
    yield made
    made.kill()


@pytest.fixture
def make_store() -> Iterator[MakeStore]:
    """Makes clients of the master at an address in this process, which are closed at the end."""
    made: list[Store] = []

    def make(address: str, **options: object) -> Store:
        store = Store(address, **{"segment_size": SEGMENT, **options})  # type: ignore[arg-type]
        made.append(store)
        return store

    yield make
    for store in reversed(made):
        store.close()


@pytest.fixture
def store(make_store: MakeStore, master: str) -> Store:
    return make_store(master)


@pytest.fixture
def compat_store(master: str) -> Iterator[MooncakeDistributedStore]:
    made = MooncakeDistributedStore()
    assert made.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, SEGMENT, "tcp", "", master) == 0, made.last_error
    yield made
    assert made.close() == 0


@pytest.fixture
def make_peer() -> Iterator[MakePeer]:
    """Makes clients of the master at an address in processes of their own, which are ended at the end."""
    made: list[Peer] = []

    def make(address: str, **options: object) -> Peer:
        peer = Peer(address, **{"segment_size": SEGMENT, **options})
        made.append(peer)
        return peer

    yield make
    for peer in reversed(made):
        peer.close()


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="NO TEST WITH PYTORCH: it is not installed")
