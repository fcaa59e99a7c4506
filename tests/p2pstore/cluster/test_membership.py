"""A node stays in the store as long as it lives; after any loss everything it holds is announced again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from p2pstore.cluster import membership, records
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.records import NodeRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry
from p2pstore.errors import MetadataFull, MetadataUnavailable
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import Condition, KeyValue, LeaseLost, Operation, Put

RECORD = NodeRecord("a", "127.0.0.1:1", "127.0.0.1:2", 3)
WAIT = 30.0


class Faulty(MemoryStore):
    """A store that does not answer while ``down``, nor the next ``failures`` transactions."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.down = False
        self.failures = 0
        self.full = False
        self.renewed = 0
        self.asked = asyncio.Event()

    def _answer(self) -> None:
        self.asked.set()
        if self.down:
            raise MetadataUnavailable(url=self.url, detail="it is down")

    async def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition] = ()) -> int | None:
        self._answer()
        if self.full and any(isinstance(operation, Put) for operation in operations):
            raise MetadataFull(url=self.url, detail="no space")
        if self.failures:
            self.failures -= 1
            raise MetadataUnavailable(url=self.url, detail="it broke off")
        return await super().commit(operations, conditions)

    async def grant(self, ttl: int) -> int:
        self._answer()
        if self.full:
            raise MetadataFull(url=self.url, detail="no space")
        return await super().grant(ttl)

    async def keep_alive(self, lease: int) -> int:
        self._answer()
        self.renewed += 1
        return await super().keep_alive(lease)


class Member:
    """A membership on a store whose clock the test moves, and which holds one object."""

    def __init__(self) -> None:
        self.now = 0.0
        self.server = MemoryServer(clock=lambda: self.now)
        self.store = Faulty(self.server)
        self.other = MemoryStore(self.server)
        self.registry = Registry(self.store, "a")
        self.said = 0
        self.membership = Membership(self.registry, RECORD, 10, [self.say])

    async def say(self) -> None:
        await self.registry.announce("m1", ReplicaRecord("a", "complete", "gold"))
        self.said += 1

    async def visible(self) -> bool:
        keys = (records.node_key("a"), records.replica_key("m1", "a"))
        found: list[KeyValue | None] = [await self.other.get(key) for key in keys]
        return all(kv is not None and kv.lease for kv in found)


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    monkeypatch.setattr(membership, "RETRY_SECONDS", 0.01)
    return Member()


@asynccontextmanager
async def kept(member: Member) -> AsyncIterator[None]:
    task = asyncio.create_task(member.membership.keep())
    try:
        yield
        assert not task.done(), "it stopped keeping the lease"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async def poll() -> None:
        while not await condition():  # noqa: ASYNC110 - the store says nothing when it changes
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), WAIT)


async def test_join_and_leave(member: Member) -> None:
    assert not member.membership.ok
    await member.membership.join()
    assert member.membership.ok
    assert await member.visible()
    await member.membership.leave()
    assert (await member.other.scan("")).items == ()


async def test_leaving_without_having_joined(member: Member) -> None:
    await member.membership.leave()


async def test_whoever_is_still_at_work_when_the_node_has_left_does_not_make_it_join_again(member: Member) -> None:
    await member.membership.join()
    await member.membership.leave()
    with pytest.raises(LeaseLost):
        await member.membership.join()
    assert (await member.other.scan("")).items == ()


async def test_what_is_found_lost_while_the_node_joins_is_said_again(member: Member) -> None:
    async def say() -> None:
        await member.say()
        if member.said == 1:
            member.membership.lost()

    member.membership.on_rejoin[:] = [say]
    await member.membership.join()
    async with kept(member):

        async def said_again() -> bool:
            return member.said == 2

        await until(said_again)


async def test_joining_a_store_that_is_down(member: Member) -> None:
    member.store.down = True
    with pytest.raises(MetadataUnavailable):
        await member.membership.join()
    assert not member.membership.ok


async def test_it_renews(member: Member) -> None:
    member.membership = Membership(member.registry, RECORD, 1, [member.say])
    await member.membership.join()
    async with kept(member):
        for _ in range(4):
            member.store.asked.clear()
            await asyncio.wait_for(member.store.asked.wait(), WAIT)
            member.now += 0.6
    assert await member.visible()
    assert member.said == 1


async def test_a_lost_lease_is_replaced_and_everything_said_again(member: Member) -> None:
    await member.membership.join()
    first = member.registry.lease
    member.now += 11
    assert not await member.visible()
    with pytest.raises(LeaseLost):
        await member.say()
    async with kept(member):
        member.membership.lost()
        await until(member.visible)
    assert member.registry.lease != first
    assert member.said == 2


async def test_a_join_that_breaks_off_is_finished(member: Member) -> None:
    """The lease was granted and lives; only what should hang on it was not written."""
    await member.membership.join()
    member.now += 11
    async with kept(member):
        for broken in (1, 2):
            member.store.failures = broken
            member.membership.lost()
            await until(member.visible)
            assert member.store.failures == 0
            await member.other.revoke(member.registry.lease)
        member.membership.lost()
        await until(member.visible)


async def test_one_lease_is_enough_for_all_attempts(member: Member) -> None:
    member.store.failures = 1
    with pytest.raises(MetadataUnavailable):
        await member.membership.join()
    lease = member.registry.lease
    await member.membership.join()
    assert member.registry.lease == lease
    assert await member.visible()


async def test_it_outlives_a_store_that_is_down(member: Member) -> None:
    await member.membership.join()
    async with kept(member):
        member.store.down = True
        member.membership.lost()

        async def noticed() -> bool:
            return not member.membership.ok

        await until(noticed)
        member.now += 11
        member.store.down = False
        await until(member.visible)

        async def fine() -> bool:
            return member.membership.ok

        await until(fine)


async def test_joins_at_once_leave_one_lease_with_everything(member: Member) -> None:
    await asyncio.gather(*(member.membership.join() for _ in range(5)))
    assert await member.visible()
    leases = {kv.lease for kv in (await member.other.scan("")).items}
    assert leases == {member.registry.lease}


async def test_a_lease_that_ends_while_all_is_said_again(member: Member) -> None:
    async def say_late() -> None:
        if member.said == 0:
            member.said += 1
            await member.other.revoke(member.registry.lease)
        await member.say()

    member.membership = Membership(member.registry, RECORD, 10, [say_late])
    with pytest.raises(LeaseLost):
        await member.membership.join()
    async with kept(member):
        member.membership.lost()
        await until(member.visible)


async def test_an_unexpected_error_goes_up_and_the_next_keeper_says_everything_again(member: Member) -> None:
    await member.membership.join()
    await member.other.revoke(member.registry.lease)

    async def broken(lease: int) -> int:
        raise RuntimeError("a bug")

    keep_alive = member.store.keep_alive
    member.store.keep_alive = broken  # type: ignore[method-assign]
    member.membership.lost()
    with pytest.raises(RuntimeError, match="a bug"):
        await asyncio.wait_for(member.membership.keep(), WAIT)
    assert not member.membership.ok
    member.store.keep_alive = keep_alive  # type: ignore[method-assign]
    async with kept(member):
        await until(member.visible)


async def test_a_store_without_space_is_in_the_log_once(
    member: Member, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is renewed meanwhile: what is said already stands. When there is room, the rest is said."""
    monkeypatch.setattr(member.membership, "_ttl", 0.03)
    await member.membership.join()
    member.store.full = True
    member.membership.lost()  # something could not be said
    renewed = member.store.renewed
    async with kept(member):

        async def often() -> bool:
            return member.store.renewed > renewed + 10

        await until(often)
        assert (member.membership.ok, await member.visible()) == (False, True)
        assert "has no space left" in str(member.membership.fault)
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warnings == [str(member.membership.fault)]
        said = member.said
        member.store.full = False

        async def again() -> bool:
            return member.membership.ok

        await until(again)
        assert (member.said, member.membership.fault) == (said + 1, None)


async def test_without_space_for_a_lease_there_is_none(member: Member) -> None:
    member.store.full = True
    with pytest.raises(MetadataFull):
        await member.membership.join()
    with pytest.raises(LeaseLost):
        await member.registry.announce("m1", ReplicaRecord("a", "complete", "gold"))
    await member.membership.leave()
