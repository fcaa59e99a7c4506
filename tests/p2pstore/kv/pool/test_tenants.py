"""What tenants may take, and what makes room for more of theirs."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import SoftPin
from p2pstore.kv.pool import eviction, tenants, writes
from tests.p2pstore.kv.pool.pools import MIB, House


def test_a_tenant_has_no_more_than_its_quota() -> None:
    house = House(tenants=True, tenant_quotas={"small": 2 * MIB})
    client = house.join("a")
    assert house.put(client, ["1", "2", "3"], tenant="small") == ["1", "2"]
    assert house.put(client, ["1", "2", "3"], tenant="other") == ["1", "2", "3"]
    house.pool.remove(["1"], tenant="small")
    assert house.put(client, ["3"], tenant="small") == ["3"]


def test_a_tenants_oldest_values_make_room_within_its_quota_and_nobody_elses() -> None:
    house = House(tenants=True, tenant_quotas={"small": 4 * MIB}, lease_ms=1000)
    client = house.join("a")
    house.put(client, ["other"], tenant="other")
    for number in range(4):
        house.put(client, [str(number)], tenant="small")
        house.clock.now += 1
    house.pool.exist(["0"], "small")
    house.put(client, ["4"], tenant="small")
    assert house.there(["0", "1", "2", "3", "4"], "small") == ["0", "2", "3", "4"], "0 was looked up"
    house.put(client, ["5", "6"], tenant="small")
    assert house.there(["0", "2", "3", "4", "5", "6"], "small") == ["0", "4", "5", "6"]
    assert house.there(["other"], "other") == ["other"]
    assert house.pool.story.of("1", "small").detail == "the tenant's quota is used up"  # type: ignore[union-attr]


def test_pinned_leased_and_unfinished_values_make_no_room_within_a_quota() -> None:
    house = House(tenants=True, tenant_quotas={"small": 4 * MIB})
    client = house.join("a")
    house.put(client, ["hard"], tenant="small", with_hard_pin=True)
    house.put(client, ["leased"], tenant="small")
    house.pool.exist(["leased"], "small")
    house.put(client, ["soft"], tenant="small", soft_pin_action=SoftPin.ENABLE)
    house.start(client, ["unfinished"], tenant="small")
    assert house.start(client, ["huge"], 5 * MIB, "small") == [Code.QUOTA]
    assert house.there(["soft"], "small") == ["soft"], "what can never fit makes nobody go"
    assert house.put(client, ["new"], tenant="small") == ["new"], "the soft pin goes last, but it goes"
    assert house.there(["hard", "leased", "soft"], "small") == ["hard", "leased"]
    house.pool.exist(["new"], "small")
    assert house.start(client, ["one more"], tenant="small") == [Code.QUOTA]


def test_used_values_at_the_head_do_not_keep_others_from_making_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "TENANT_ENTRIES", 3)
    house = House(tenants=True, tenant_quotas={"small": 10 * MIB}, evict_soft_pinned=False)
    client = house.join("a")
    keys = [str(number) for number in range(10)]
    house.put(client, keys, tenant="small")
    house.pool.exist(keys[:5], "small")
    assert house.start(client, ["new"], tenant="small") == [Code.QUOTA], "only so many are looked at in one call"
    assert house.put(client, ["new"], tenant="small") == ["new"]
    assert len(house.there(keys, "small")) == 9


def test_a_call_of_many_keys_looks_for_room_in_a_quota_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "TENANT_ENTRIES", 3)
    used = 3 * writes.QUOTA_LOOKS
    house = House(tenants=True, tenant_quotas={"small": (used + 3) * MIB}, evict_soft_pinned=False)
    client = house.join("a")
    keys = [str(number) for number in range(used + 3)]
    house.put(client, keys, tenant="small")
    house.pool.exist(keys[:used], "small")
    new = [f"new-{number}" for number in range(writes.QUOTA_LOOKS + 3)]
    assert house.start(client, new, tenant="small") == [Code.QUOTA] * len(new)
    assert house.put(client, new, tenant="small")[:3] == new[:3], "the next call goes on where that one ended"


def test_what_tenants_take_is_told() -> None:
    house = House(tenants=True, tenant_quotas={"small": 3 * MIB})
    client = house.join("a")
    assert list(house.pool.tenant_uses()) == [("small", 3 * MIB, 0)]
    house.put(client, ["1", "2"], tenant="small")
    house.put(client, ["1"], tenant="other")
    assert list(house.pool.tenant_uses()) == [("small", 3 * MIB, 2 * MIB), ("other", None, MIB)]


def test_a_quota_is_changed_while_the_pool_runs() -> None:
    house = House(tenants=True, tenant_quotas={"small": 4 * MIB}, lease_ms=1)
    client, keys = house.join("a"), ["1", "2", "3", "4"]
    house.put(client, keys, tenant="small")
    house.later(1, client)
    assert house.pool.set_quota("small", 2 * MIB) is Code.OK
    assert list(house.pool.tenant_uses()) == [("small", 2 * MIB, 4 * MIB)]
    assert house.there(keys, "small") == keys, "nothing goes at once"
    house.put(client, ["5"], tenant="small")
    assert house.there([*keys, "5"], "small") == ["4", "5"]
    assert house.pool.set_quota("small", 0) is Code.OK
    assert house.put(client, keys, tenant="small") == ["1", "2", "3"]
    assert house.pool.set_quota("new", MIB) is Code.OK
    assert house.put(client, ["1"], size=2 * MIB, tenant="new") == []
    assert house.pool.set_quota("nobody", 0) is Code.NOT_FOUND
    assert {house.pool.set_quota(*each) for each in (("", 1), ("x", -1), ("x", 1 << 63))} == {Code.BAD_PARAMS}
    assert House().pool.set_quota("small", 1) is Code.BAD_MODE


def test_quotas_that_are_set_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "MAX_QUOTAS", 2)
    house = House(tenants=True)
    assert [house.pool.set_quota(name, 1) for name in "abca"] == [Code.OK, Code.OK, Code.QUOTA, Code.OK]
    assert [house.pool.set_quota(name, 0) for name in "ab"] == [Code.OK, Code.OK]
    assert [house.pool.set_quota(name, 1) for name in "cd"] == [Code.OK, Code.OK], "those that went take no room"


def test_a_quota_of_the_settings_can_be_taken_away_though_as_many_as_may_be_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tenants, "MAX_QUOTAS", 1)
    house = House(tenants=True, tenant_quotas={"small": MIB})
    assert house.pool.set_quota("other", 1) is Code.OK
    assert house.pool.set_quota("small", 2 * MIB) is Code.QUOTA
    assert house.pool.set_quota("small", 0) is Code.OK
    assert house.pool.tenant_use("small") is None
    assert house.pool.tenant_use("other") == ("other", 1, 0)


def test_a_group_goes_as_a_whole_for_a_quota() -> None:
    house = House(tenants=True, tenant_quotas={"small": 3 * MIB})
    client = house.join("a")
    house.put(client, ["a", "b"], tenant="small", group_ids=["g", "g"])
    house.put(client, ["c"], tenant="small")
    house.put(client, ["d"], tenant="small")
    assert house.there(["a", "b", "c", "d"], "small") == ["c", "d"]
