"""Who puts and who gets: our client and three generations of the real one, on our master and on the real one.

On our master each of them gets what each other put. The real master serves its own generation alone, and ours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.engine import P2PHANDSHAKE
from tests.interop.store_client import digest, value_of
from tests.interop.store_master import our_master, real_master
from tests.interop.test_store import Client
from tests.interop.wheels import OLD, OLDEST, Wheel, wheel

OURS = Wheel("ours", {"STORE_MODULE": "p2pstore.kv.client.compat"}, Path())
RELEASES = {"ours": "", "0.3.9": OLDEST, "0.3.11": OLD, "0.3.13": "newest"}
"""Clients, and where the real ones come from."""

SERVED = {"our master": tuple(RELEASES), "the real master": ("ours", "0.3.13")}
PAIRS = [(master, putter, getter) for master, kinds in SERVED.items() for putter in kinds for getter in kinds]

KIB, MIB = 1 << 10, 1 << 20
LENGTHS = (1, 2, 255, 256, 4095, 4096, 4097, 65_537, MIB - 1, MIB + 1, 5_000_001, 16 * MIB, 64 * MIB)
EMPTY = digest(b"")
MANY = 40
THREADS = 4
MEMORY = {"STORE_SEGMENT": str(256 * MIB), "STORE_BUFFER": str(160 * MIB)}
APART = ("0.3.13", "0.3.9")
"""The first cannot use the memory of the second: that one closes a connection after each request, and it uses it again."""
UNACKNOWLEDGED = {"0.3.9", "0.3.11"}
"""They speak version 1 of the transfer's protocol: a real client's put is over once its bytes are on their way."""
SETTLE_SECONDS = 60


class Pool:
    """A master and its clients, each of which is started when it is first asked for, and gives memory."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._clients: dict[str, Client] = {}

    def __getitem__(self, kind: str) -> Client:
        if kind not in self._clients:
            installed = wheel(RELEASES[kind]) if RELEASES[kind] else OURS
            self._clients[kind] = Client(installed, P2PHANDSHAKE, self._address, offers=True, **MEMORY)
        return self._clients[kind]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pool]]:
    with (
        our_master() as ours,
        real_master(wheel("newest"), tmp_path_factory.mktemp("master")) as real,
    ):
        made = {"our master": Pool(ours.address), "the real master": Pool(real)}
        yield made
        for pool in made.values():
            pool.close()


class Pair:
    """Who puts, and who gets; the memory may be of either."""

    def __init__(self, pool: Pool, putter: str, getter: str) -> None:
        self.putter, self.getter = pool[putter], pool[getter]
        self._owners = {"putter": self.putter, "getter": self.getter}
        self._apart = {"putter": (getter, putter) == APART, "getter": (putter, getter) == APART}
        self._may_be_mistaken = getter in UNACKNOWLEDGED
        self._late = putter != "ours" and not UNACKNOWLEDGED.isdisjoint((putter, getter))

    def segment(self, owner: str) -> str:
        """Where values are to lie: with that one, if the other can use its memory."""
        client, other = self._owners[owner], self._owners["getter" if owner == "putter" else "putter"]
        return str((other if self._apart[owner] else client)("name")["name"])

    def gets(self, do: str, expected: list[str], **how: object) -> None:
        """Have the getter get, and compare."""
        found = self.getter(do, **how)["sha256"]
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._comes_right(found, expected) and time.monotonic() < deadline:
            time.sleep(0.1)
            found = self.getter(do, **how)["sha256"]
        assert found == expected

    def _comes_right(self, found: list[str], expected: list[str]) -> bool:
        """Whether what is wrong is the putter's haste, or a new connection of a getter that the master took for another."""
        empty = all(each in (right, EMPTY) for each, right in zip(found, expected, strict=True))
        return found != expected and (self._late or (self._may_be_mistaken and empty))


@pytest.fixture(params=PAIRS, ids=lambda each: f"{each[1]} puts and {each[2]} gets on {each[0]}")
def pair(request: pytest.FixtureRequest, pools: dict[str, Pool]) -> Iterator[Pair]:
    master, putter, getter = request.param
    pool = pools[master]
    yield Pair(pool, putter, getter)
    assert pool["ours"]("remove_matching", pattern=".*", force=True)["count"] >= 0


@pytest.mark.parametrize("owner", ["putter", "getter"])
def test_values_of_any_length(pair: Pair, owner: str) -> None:
    """They lie in the memory of who puts, so that the other fetches them, or of who gets, to whom they are written."""
    lengths = LENGTHS if owner == "putter" else LENGTHS[:-1]
    names = [f"{length} bytes" for length in lengths]
    put = pair.putter("put_at", keys=names, lengths=lengths, segment=pair.segment(owner), threads=1)
    assert put == {"code": [0] * len(names)}
    pair.gets("get_all", [digest(value_of(*each)) for each in zip(names, lengths, strict=True)], keys=names, threads=1)


def test_many_together_with_holes_between(pair: Pair) -> None:
    names = [f"key {number}" for number in range(MANY)]
    lengths = [1 + 997 * number for number in range(MANY)]
    assert pair.putter("put_batch", keys=names, lengths=lengths, segment=pair.segment("putter")) == {"code": 0}
    asked = [name for each in names for name in (each, f"no {each}")]
    values = [digest(value_of(*each)) for each in zip(names, lengths, strict=True)]
    pair.gets("get_batch", [each for value in values for each in (value, EMPTY)], keys=asked)
    assert pair.getter("exist", keys=asked) == {"found": [1, 0] * MANY}


def test_by_several_threads_at_once(pair: Pair) -> None:
    names = [f"key {number}" for number in range(MANY)]
    lengths = [1 + 9_973 * number for number in range(MANY)]
    put = pair.putter("put_at", keys=names, lengths=lengths, segment=pair.segment("putter"), threads=THREADS)
    assert put == {"code": [0] * MANY}
    expected = [digest(value_of(*each)) for each in zip(names, lengths, strict=True)]
    pair.gets("get_all", expected, keys=names, threads=THREADS)
