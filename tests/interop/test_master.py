"""Our master and the real store's clients of three generations at once, unmodified: what is not in ``test_cross.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.engine import P2PHANDSHAKE
from p2pstore.kv.master.server import Master
from tests.interop.store_client import digest, value_of
from tests.interop.store_master import our_master
from tests.interop.test_store import Client
from tests.interop.wheels import BETWEEN, OLD, OLDEST, wheel

GENERATIONS = {"0.3.9": OLDEST, "0.3.11": OLD, "0.3.13": "newest"}
"""And a release of each."""

TRANSFERS = {"MC_TCP_ENABLE_CONNECTION_POOL": "0"}
"""0.3.9 closes a connection after each transfer, and 0.3.13 uses it again: every other of its reads there fails. That is
between the two, and no matter of the master's."""


@pytest.fixture(scope="module")
def master() -> Iterator[Master]:
    for release in GENERATIONS.values():
        wheel(release)
    with our_master() as made:
        yield made


@pytest.fixture(scope="module")
def clients(master: Master) -> Iterator[dict[str, Client]]:
    """A client of each generation, each with memory in the pool."""
    made: dict[str, Client] = {}
    try:
        for generation, release in GENERATIONS.items():
            made[generation] = Client(wheel(release), P2PHANDSHAKE, master.address, offers=True, **TRANSFERS)
        yield made
    finally:
        for client in made.values():
            client.close()


def test_codes_are_the_same_for_each(clients: dict[str, Client]) -> None:
    assert clients["0.3.13"]("put", key="leased", length=10) == {"code": 0}
    for client in clients.values():
        assert client("put", key="leased", length=20) == {"code": 0}
        assert client("get", key="leased") == {"sha256": digest(value_of("leased", 10))}
        assert client("remove", key="leased") == {"code": -706}
        assert client("remove", key="none") == {"code": -704}


def test_readers_that_give_no_memory_are_answered_each_in_its_form(master: Master, clients: dict[str, Client]) -> None:
    """They put nothing, and 0.3.9 and 0.3.11 ask alike. On a slow day one may ask before it has said what tells."""
    assert clients["0.3.13"]("put", key="read", length=1000) == {"code": 0}
    for release in (*GENERATIONS.values(), *GENERATIONS.values()):
        before = set(master.callers.known)
        reader = Client(wheel(release), P2PHANDSHAKE, master.address, offers=False, **TRANSFERS)
        try:
            wrong = reader("read", keys=["read"], lengths=[1000], threads=1, times=20)["wrong"]
        finally:
            reader.close()
        assert all(what.endswith(": 0 bytes") for what in wrong), release
        assert sum(wrong.values()) <= len(set(master.callers.known) - before), (release, wrong)


def test_readers_of_one_host_at_the_same_moment_in_threads_never_get_wrong_bytes(
    master: Master, clients: dict[str, Client]
) -> None:
    """Each opens connections as it needs them. One that has said nothing may be mistaken: for one call, then it is known."""
    names = [f"shared {number}" for number in range(8)]
    lengths = [100 + number for number in range(8)]
    assert clients["0.3.13"]("put_batch", keys=names, lengths=lengths) == {"code": 0}
    before = set(master.callers.known)
    readers = [
        Client(wheel(release), P2PHANDSHAKE, master.address, offers=False, **TRANSFERS)
        for release in GENERATIONS.values()
        for _ in range(2)
    ]
    try:
        for reader in readers:
            reader.ask("read", keys=names, lengths=lengths, threads=4, times=100)
        wrong = [reader.answer()["wrong"] for reader in readers]
    finally:
        for reader in readers:
            reader.close()
    assert all(what.endswith(": 0 bytes") for each in wrong for what in each)
    assert sum(sum(each.values()) for each in wrong) <= len(set(master.callers.known) - before)


def test_a_client_of_0_3_12_puts_and_gets_beside_the_others(master: Master, clients: dict[str, Client]) -> None:
    """Its look-ups are like those of 0.3.13, and their answers are not: what either puts tells."""
    names = [f"of 0.3.12, {number}" for number in range(20)]
    lengths = [1 + 4999 * number for number in range(20)]
    between = Client(wheel(BETWEEN), P2PHANDSHAKE, master.address, offers=True)
    try:
        segment = between("name")["name"]
        assert between("put_at", keys=names, lengths=lengths, threads=4, segment=segment) == {"code": [0] * 20}
        expected = [digest(value_of(*each)) for each in zip(names, lengths, strict=True)]
        assert between("get_batch", keys=names) == {"sha256": expected}
        assert clients["0.3.13"]("put", key="for 0.3.12", length=70_000) == {"code": 0}
        assert clients["0.3.13"]("get_batch", keys=names) == {"sha256": expected}
        assert between("get", key="for 0.3.12") == {"sha256": digest(value_of("for 0.3.12", 70_000))}
        assert between("exist", keys=["for 0.3.12", "none"]) == {"found": [1, 0]}
        before = set(master.callers.known)
        wrong = between("read", keys=names, lengths=lengths, threads=4, times=50)["wrong"]
        assert all(what.endswith(": 0 bytes") for what in wrong)
        assert sum(wrong.values()) <= len(set(master.callers.known) - before), wrong
        assert "0.3.12" in {caller.generation for caller in master.callers.known.values()}
    finally:
        between.close()


def test_the_master_knows_of_which_generation_each_was(master: Master, clients: dict[str, Client]) -> None:
    heard = {name: set() for caller in master.callers.known.values() for name in caller.clients}
    for caller in master.callers.known.values():
        for name in caller.clients:
            heard[name].add(caller.generation)
    assert {frozenset(each) for each in heard.values()} >= {frozenset({each}) for each in GENERATIONS}
    assert not any(caller.unknown or caller.malformed for caller in master.callers.known.values())
