"""The pool as a whole: what it does by itself, and what it says of itself."""

from __future__ import annotations

from engine.rpc.codes import Code
from p2pstore.kv.pool.settings import LEASE_MS, PoolSettings
from tests.p2pstore.kv.pool.pools import MIB, House


def test_the_defaults_are_upstreams() -> None:
    settings = PoolSettings()
    assert (settings.lease_ms, settings.soft_pin_ms, settings.max_soft_pin_ms) == (10_000, 1_800_000, 86_400_000)
    assert (settings.high_watermark, settings.eviction_ratio) == (0.9, 0.05)
    assert (settings.client_ttl, settings.put_discard, settings.put_release) == (10.0, 30.0, 600.0)
    assert settings.lease_ms == LEASE_MS


def test_segments_are_described() -> None:
    house = House()
    client = house.join("a", host="h")
    house.put(client, ["k"])
    house.clock.now += 3
    (found,) = house.pool.segments()
    assert (found.name, found.client, found.size, found.used, found.status) == ("a", client, 64 * MIB, MIB, "OK")
    assert found.silent == 3.0
    assert house.pool.segment("a") == found
    assert house.pool.segment("b") is Code.NO_SEGMENT
    assert house.pool.storage_config() == ("", True, 0)


def test_nothing_is_put_down_where_no_journal_is_kept() -> None:
    house = House()
    house.put(house.join("a"), ["k"])
    assert house.pool.take_log() == []
