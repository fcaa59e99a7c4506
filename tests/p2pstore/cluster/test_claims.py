"""What is to be done once is claimed by one node, and by the next when that is done, or dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.net.backoff import Backoff
from p2pstore.cluster import claims as module
from p2pstore.cluster.claims import Claims, claim, claimant, give_back
from p2pstore.cluster.registry import Registry
from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import LeaseLost
from p2pstore.supervisor import Supervisor

WHAT = "hf/blobs/x"
WAIT = 60.0


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


class Away:
    """Metadata that do a node's calls, or do not, and tell it that they are away, so often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, does: bool) -> None:
        self.times = 0
        self._does = does
        for name in ("claim", "give_back"):
            monkeypatch.setattr(module, name, self._call(getattr(module, name)))

    def _call(self, real: object) -> object:
        async def call(registry: Registry, what: str) -> object:
            self.times -= 1
            if self.times < 0 or self._does:
                done = await real(registry, what)  # type: ignore[operator]
            if self.times < 0:
                return done
            raise MetadataUnavailable(url="etcd://x", detail="away")

        return call


@pytest.fixture
async def supervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(module, "RETRIES", Backoff(0.01, 0.01))
    made = Supervisor()
    yield made
    await made.close()


async def none_has_it(registry: Registry) -> None:
    async def looks() -> None:
        while await claimant(registry, WHAT):  # noqa: ASYNC110 - in a store
            await asyncio.sleep(0.01)

    await asyncio.wait_for(looks(), WAIT)


@pytest.mark.parametrize("does", [False, True])
async def test_what_cannot_be_given_back_is_given_back_later(
    pair: tuple[Registry, Registry], supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, does: bool
) -> None:
    one, other = pair
    claims, away = Claims(one, supervisor), Away(monkeypatch, does=does)
    assert await claims.claim(WHAT)
    away.times = 4
    await claims.give_back(WHAT)
    await none_has_it(other)
    assert not supervisor.report() or supervisor.report()[0]["failures"] == 0


async def test_a_claim_whose_answer_was_lost_is_given_back(
    pair: tuple[Registry, Registry], supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows of it: whoever made it may ask no more."""
    one, other = pair
    claims, away = Claims(one, supervisor), Away(monkeypatch, does=True)
    away.times = 3
    with pytest.raises(MetadataUnavailable):
        await claims.claim(WHAT)
    assert await claimant(other, WHAT) == "one"
    await none_has_it(other)


async def test_what_was_claimed_anew_is_not_given_back(
    pair: tuple[Registry, Registry], supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    claims, away = Claims(one, supervisor), Away(monkeypatch, does=False)
    assert await claims.claim(WHAT)
    away.times = 1
    await claims.give_back(WHAT)
    assert await claims.claim(WHAT)
    await until_idle(supervisor)
    assert await claimant(other, WHAT) == "one"
    await claims.give_back(WHAT)
    assert await claimant(other, WHAT) == ""


async def until_idle(supervisor: Supervisor) -> None:
    async def idle() -> None:
        while any(task["state"] == "running" for task in supervisor.report()):  # noqa: ASYNC110 - it is only told
            await asyncio.sleep(0.01)

    await asyncio.wait_for(idle(), WAIT)


async def test_what_went_with_the_lease_is_owed_to_nobody(
    pair: tuple[Registry, Registry], supervisor: Supervisor
) -> None:
    one, other = pair
    claims = Claims(one, supervisor)
    assert await claims.claim(WHAT)
    await one.store.revoke(one.lease)
    assert not await claims.claim(WHAT)
    assert await claim(other, WHAT)
    await claims.give_back(WHAT)
    assert await claimant(one, WHAT) == "other"
    assert supervisor.report() == []
