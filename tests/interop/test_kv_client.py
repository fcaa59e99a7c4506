"""Our client of the pool and the real one, on the real master: what either puts, the other gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from p2pstore.kv.client.store import Store
from tests.interop.store_client import digest, value_of
from tests.interop.test_store import Client
from tests.interop.wheels import wheel
from tests.p2pstore.kv.client.masters import RealMaster

SIZES = [1, 2, 4095, 4097, 1 << 20, 5_000_001, 16 << 20]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    made = RealMaster(tmp_path_factory.mktemp("master") / "log")
    yield made.address
    made.kill()


@pytest.fixture(params=["its memory", "our memory"])
def pair(request: pytest.FixtureRequest, master: str) -> Iterator[tuple[Store, Client]]:
    """Our client and the real one, of which one gives memory to the pool."""
    ours = request.param == "our memory"
    real = Client(wheel("newest"), "P2PHANDSHAKE", master, offers=not ours)
    with Store(master, segment_size=(64 << 20) if ours else 0) as store:
        yield store, real
        real.close()


def test_what_one_puts_the_other_gets(pair: tuple[Store, Client], request: pytest.FixtureRequest) -> None:
    store, real = pair
    for size in SIZES:
        theirs, mine = (f"{request.node.name}-{side}-{size}" for side in ("theirs", "mine"))
        assert real("put", key=theirs, length=size) == {"code": 0}
        assert store.get(theirs) == value_of(theirs, size)
        assert store.put(mine, value_of(mine, size))
        assert real("get", key=mine) == {"sha256": digest(value_of(mine, size))}
        assert store.get(mine) == value_of(mine, size)
        store.remove(theirs, force=True)
        store.remove(mine, force=True)


def test_many_at_once_with_holes_between(pair: tuple[Store, Client], request: pytest.FixtureRequest) -> None:
    store, real = pair
    names = [f"{request.node.name}-{number}" for number in range(40)]
    for number, name in enumerate(names):
        if number % 4 == 0:
            assert real("put", key=name, length=1000 + number) == {"code": 0}
    assert store.put_many({name: value_of(name, 1000 + number) for number, name in enumerate(names) if number % 4 == 1})
    found = store.get_many(names)
    for number, name in enumerate(names):
        assert found[number] == (value_of(name, 1000 + number) if number % 4 < 2 else None)
    for number, name in enumerate(names):
        if number % 4 == 1:
            expected = digest(value_of(name, 1000 + number))
            assert real("get", key=name) == {"sha256": expected}


def test_with_its_checksums_switched_on_either_takes_the_others_values(
    master: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client's CRC-64, and ours under the same variable."""
    monkeypatch.setenv("MOONCAKE_STORE_CHECKSUM", "1")
    real = Client(wheel("newest"), "P2PHANDSHAKE", master, offers=True)
    with Store(master, segment_size=0) as store:
        assert real("put", key="theirs, summed", length=100_000) == {"code": 0}
        found = store.replicas("theirs, summed")
        assert found.checksum is not None, "the real client put no checksum: the variable is called otherwise"
        assert store.get("theirs, summed") == value_of("theirs, summed", 100_000)
        assert store.put("mine, summed", value_of("mine, summed", 100_000))
        expected = digest(value_of("mine, summed", 100_000))
        assert real("get", key="mine, summed") == {"sha256": expected}
    real.close()
