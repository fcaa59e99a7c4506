"""A pool made again from its records."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import ClientStatus, ObjectMeta, ReplicateConfig, SoftPin
from p2pstore.kv.pool import records
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.walks import whole
from tests.p2pstore.kv.pool.pools import MIB, House, address, ident, segment


class Logged(House):
    """A pool of which all records are kept, and which can be made again from them."""

    def __init__(self, **settings: object) -> None:
        super().__init__(log=True, **settings)
        self.records: list[bytes] = []

    def log(self) -> list[bytes]:
        self.records += self.pool.take_log()
        return self.records

    def again(self, from_records: Iterable[bytes] | None = None) -> House:
        """The pool after a restart, all of whose clients are absent."""
        house = House()
        house.settings = self.settings
        house.clock = self.clock
        kept = self.log() if from_records is None else from_records
        house.pool = Pool.restore(self.settings, self.clock, kept, chance=random.Random(3))
        return house


def snapshot(pool: Pool, slices: int = 2) -> list[bytes]:
    taken = pool.snapshot()
    found: list[bytes] = []
    while not taken.ended:
        found += taken.step(slices)
    return found


def test_values_can_be_read_again_once_their_owner_mounted_the_same_memory() -> None:
    house = Logged()
    client = house.join("a")
    house.put(client, ["k", "l"])
    house.pool.remove(["l"])
    before = house.pool.replicas(["k"])
    again = house.again()
    assert again.pool.exist(["k"]) == [False]
    assert again.pool.ping(client).status == ClientStatus.NEED_REMOUNT
    assert again.pool.remount(client, [segment("a")]) is Code.OK
    assert again.pool.replicas(["k", "l"]) == [*before, Code.NOT_FOUND]
    assert again.pool.stats.allocated_bytes == MIB


def test_a_put_that_had_not_ended_is_not_there_and_its_memory_is_not_given_to_others() -> None:
    house = Logged()
    client = house.join("a", 2 * MIB)
    started = house.start(client, ["k"])
    again = house.again()
    again.pool.remount(client, [segment("a", 2 * MIB)])
    assert again.there(["k"]) == []
    (fresh,) = again.start(client, ["l"])
    assert address(fresh) != address(started[0])
    assert again.start(client, ["m"]) == [Code.NO_SPACE]
    again.later(601, client)
    assert again.put(client, ["m"]) == ["m"]


def test_all_values_are_leased_at_first_for_somebody_may_be_reading() -> None:
    house = Logged()
    client = house.join("a")
    house.put(client, ["k"])
    again = house.again()
    again.pool.remount(client, [segment("a")])
    assert again.pool.remove(["k"]) == [Code.LEASED]
    again.later(11, client)
    assert again.pool.remove(["k"]) == [Code.OK]


def test_pins_groups_and_checksums_are_kept() -> None:
    house = Logged(tenants=True)
    client = house.join("a")
    house.start(client, ["sum"], tenant="t")
    house.pool.put_end(client, [ObjectMeta("sum", 2**64 - 1)], tenant="t")
    house.put(client, ["hard"], with_hard_pin=True)
    house.put(client, ["soft"], soft_pin_action=SoftPin.ENABLE, soft_pin_ttl_ms=60_000)
    house.put(client, ["g1", "g2"], group_ids=["group", "group"], data_type=3)
    again = house.again()
    again.pool.remount(client, [segment("a")])
    looked = again.pool.peek("sum", "t")
    assert not isinstance(looked, Code)
    assert looked.checksum == 2**64 - 1
    assert again.pool.stats.soft_pin_key_count == 1
    again.later(11, client)
    again.pool.exist(["g1"])
    assert again.pool.remove(["g2"]) == [Code.LEASED]
    again.put(client, [str(number) for number in range(55)])
    assert again.there(["hard", "soft"]) == ["hard", "soft"]
    again.later(60, client)
    assert again.pool.stats.soft_pin_key_count == 0


def test_quotas_that_were_set_hold_before_those_of_the_settings() -> None:
    house = Logged(tenants=True, tenant_quotas={"a": MIB, "b": MIB, "c": MIB})
    house.pool.set_quota("a", 5 * MIB)
    house.pool.set_quota("b", 0)
    house.pool.set_quota("went", MIB)
    house.pool.set_quota("went", 0)
    house.put(house.join("client"), ["k"], tenant="b")
    for kept in (house.log(), snapshot(house.pool)):
        again = house.again(kept)
        assert {use.name: use.quota for use in again.pool.tenant_uses()} == {"a": 5 * MIB, "b": None, "c": MIB}
        assert list(again.pool.tenant_uses()) == list(house.again(snapshot(again.pool)).pool.tenant_uses())


def test_what_lay_in_an_unmounted_segment_is_not_there() -> None:
    house = Logged()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["both"], replica_num=2)
    house.put(client, ["one"], preferred_segment="a")
    house.pool.unmount(client, ident("seg-a"))
    again = house.again()
    again.pool.remount(client, [segment("a")])
    again.pool.remount(other, [segment("b")])
    assert again.pool.exist(["both", "one"]) == [True, False]


def test_a_client_that_does_not_come_back_is_forgotten() -> None:
    house = Logged()
    house.put(house.join("a"), ["k"])
    again = house.again()
    assert again.pool.stats.key_count == 1
    again.later(601)
    assert again.pool.stats.key_count == 0
    assert again.pool.segments() == []


def test_a_snapshot_is_the_pool_and_so_is_one_of_what_it_made() -> None:
    house = Logged()
    client = house.join("a")
    house.put(client, [f"k{number}" for number in range(30)], 1000)
    house.start(client, ["writing"])
    first = snapshot(house.pool)
    again = house.again(first)
    assert sorted(snapshot(again.pool)) == sorted(first)


def test_two_values_that_claim_the_same_bytes_are_both_not_believed() -> None:
    mount = records.mounted(1, ident("a"), segment("a", MIB))
    house = Logged()
    client = house.join("a", MIB)
    house.put(client, ["k"], 500)
    entry = house.pool._index.tenants["default"].keys["k"]
    value = records.value(entry, 0.0)
    entry.key = "l"
    other = records.value(entry, 0.0)
    again = house.again([mount, value, other])
    again.pool.remount(client, [segment("a", MIB)])
    assert again.there(["k", "l"]) == []
    assert again.pool.stats.allocated_bytes == 512, "and the bytes are nobody's for a while"
    again.later(601, client)
    assert again.pool.stats.allocated_bytes == 0


@pytest.mark.parametrize("data", [b"", b"\x09", b"\x03\xff\xff", b"\x06\x01", b"\x04\x01\x00\xff"])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(records.BadRecord):
        records.read(data)


def test_keys_of_any_characters_are_kept() -> None:
    keys = ["\udcff\ud800", "\N{SNOWMAN}", "line\nline", "x" * 100_000]
    house = Logged()
    client = house.join("a")
    house.put(client, keys)
    again = house.again()
    again.pool.remount(client, [segment("a")])
    assert again.there(keys) == keys


# -- a model: whatever happened, and wherever the records end


def seen(pool: Pool) -> object:
    """All of a pool that records keep."""
    index = pool._index
    return (
        {
            (entry.tenant.name, entry.key): (
                entry.size,
                entry.checksum,
                entry.hard,
                entry.more is not None and entry.more.pinned_until > 0,
                entry.more.group.name if entry.more and entry.more.group else "",
                sorted((held.segment.id, held.offset) for held in entry.memory if held.ready and not held.segment.gone),
            )
            for entry in index.entries()
            if entry not in index.writing and any(not held.segment.gone for held in entry.memory)
        },
        {(each.id, each.base, each.size, each.client, each.number) for each in index.segments},
        {
            (number, at)
            for number, offset, size in index.reserved()
            for at in range(offset, offset + size, 64)
        },
    )  # fmt: skip


def step(house: House, chance: random.Random) -> None:
    """Something that clients do, or time."""
    name = chance.choice("abc")
    client = ident(name)
    keys = chance.sample([f"k{number}" for number in range(20)], 3)
    what = chance.randrange(12)
    pool = house.pool
    if what == 0:
        pool.mount(client, segment(name, 40 * 64))
    elif what == 1 and chance.random() < 0.3:
        pool.unmount(client, ident(f"seg-{name}"))
    elif what == 2:
        pool.remove(keys, force=chance.random() < 0.5)
    elif what == 3 and chance.random() < 0.2:
        whole(pool.remove_all())
    elif what == 4:
        pool.put_revoke(client, keys)
    elif what in {5, 6}:
        pool.put_end(client, [ObjectMeta(key, chance.getrandbits(64)) for key in keys])
    elif what == 7:
        house.clock.now += chance.choice([0.1, 1.0, 12.0, 40.0])
        if pool.ping(client).status == ClientStatus.NEED_REMOUNT:
            pool.remount(client, [segment(name, 40 * 64)])
        house.ticked()
    elif what == 8:
        pool.exist(keys)
    else:
        pins = {"with_hard_pin": True} if what == 9 and chance.random() < 0.2 else {}
        soft = SoftPin.ENABLE if chance.random() < 0.2 else SoftPin.PRESERVE
        groups = ["g"] * 3 if chance.random() < 0.2 else None
        config = ReplicateConfig(replica_num=chance.choice([1, 1, 2]), soft_pin_action=soft, group_ids=groups, **pins)
        call = pool.upsert_start if chance.random() < 0.3 else pool.put_start
        call(client, keys, [chance.randrange(1, 500) for _ in keys], config)


@pytest.mark.parametrize("seed", range(12))
def test_the_records_up_to_any_of_them_make_the_pool_that_was_then(seed: int) -> None:
    chance = random.Random(seed)
    house = Logged()
    states = [(0, seen(house.pool))]
    for _ in range(250):
        step(house, chance)
        states.append((len(house.log()), seen(house.pool)))
    at = dict(states)  # of several steps that put nothing down the last
    for cut in sorted(at):
        assert seen(house.again(house.records[:cut]).pool) == at[cut]
    for cut in range(0, len(house.records), 7):  # within a call: some pool, and a sound one
        pool = house.again(house.records[:cut]).pool
        for mounted in pool._index.segments:
            taken = [size for number, _, size in pool._index.reserved() if number == mounted.number]
            entries = [
                entry.size for entry in pool._index.entries() for held in entry.memory if held.segment is mounted
            ]
            assert mounted.extents.used == sum(-(-size // 64) * 64 for size in taken + entries)


@pytest.mark.parametrize("seed", range(12))
def test_a_snapshot_taken_in_slices_while_the_pool_goes_on_is_made_right_by_the_records_since(seed: int) -> None:
    chance = random.Random(100 + seed)
    house = Logged()
    for _ in range(200):
        step(house, chance)
    house.pool.take_log()
    taken = house.pool.snapshot()
    found: list[bytes] = []
    while not taken.ended:
        found += taken.step(1)
        for _ in range(chance.randrange(4)):
            step(house, chance)
    assert house.pool._index.order.plain.walks == house.pool._index.order.soft.walks == []
    assert seen(house.again(found + house.pool.take_log()).pool) == seen(house.pool)


@pytest.mark.parametrize("checksum", [None, 0, 2**64 - 1])
@pytest.mark.parametrize("special", [False, True])
def test_a_value_is_read_as_it_was_written(checksum: int | None, special: bool) -> None:
    house = Logged(tenants=True)
    client = house.join("a")
    house.start(client, ["\N{SNOWMAN}"], 77, "t\N{SNOWMAN}", with_hard_pin=special)
    house.pool.put_end(client, [ObjectMeta("\N{SNOWMAN}", checksum)], tenant="t\N{SNOWMAN}")
    (found,) = [each for each in map(records.read, house.log()) if isinstance(each, records.Value)]
    places = [records.MemoryPlace(1, 0)]
    assert found == ("t\N{SNOWMAN}", "\N{SNOWMAN}", 77, client, places, checksum, special, 0.0, "", 0)
