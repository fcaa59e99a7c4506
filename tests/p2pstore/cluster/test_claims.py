"""What is to be done once is claimed by one node, and by the next when that is done, or dies."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from p2pstore.cluster.claims import claim, claimant, give_back
from p2pstore.cluster.registry import Registry
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import LeaseLost

WHAT = "hf/blobs/x"


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Registry, Registry]]:
    server = MemoryServer()
    made = []
    for name in ("one", "other"):
        registry = Registry(MemoryStore(server), name)
        registry.lease = await registry.store.grant(60)
        made.append(registry)
    yield made[0], made[1]
    for registry in made:
        await registry.store.close()


async def test_one_has_it(pair: tuple[Registry, Registry]) -> None:
    one, other = pair
    assert await claimant(one, WHAT) == ""
    assert await claim(one, WHAT)
    assert not await claim(other, WHAT)
    assert await claim(one, WHAT), "it may ask again, as after a restart"
    assert await claimant(other, WHAT) == "one"
    await give_back(other, WHAT)
    assert not await claim(other, WHAT), "nobody gives back what is another's"
    await give_back(one, WHAT)
    assert await claim(other, WHAT)


async def test_it_goes_with_its_lease(pair: tuple[Registry, Registry]) -> None:
    one, other = pair
    assert await claim(one, WHAT)
    await one.store.revoke(one.lease)
    assert await claim(other, WHAT)
    with pytest.raises(LeaseLost):
        await claim(one, "another")
