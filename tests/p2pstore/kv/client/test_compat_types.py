"""The types that the compatible class takes and gives."""

from __future__ import annotations

import pytest

from p2pstore.kv.client.compat import MooncakeDistributedStore, ReplicateConfig, SoftPinAction


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


def test_replicate_config_takes_the_fields_of_all_releases(store: MooncakeDistributedStore, key: str) -> None:
    config = ReplicateConfig()
    assert config.soft_pin_ttl_ms is None
    for bad in (-1, 1 << 64, "5"):
        with pytest.raises(TypeError):
            config.soft_pin_ttl_ms = bad  # type: ignore[assignment]
    config.with_soft_pin = True
    assert config.soft_pin_action is SoftPinAction.ENABLE
    assert config.with_soft_pin
    config.soft_pin_ttl_ms = 1000
    config.preferred_segment = store.get_hostname()
    assert store.put(key, b"x", config) == 0
    with pytest.raises(AttributeError):
        config.with_softpin = True  # type: ignore[attr-defined]
    nothing = ReplicateConfig()
    nothing.replica_num = 0
    assert store.put(key + "0", b"x", nothing) == -600
    grouped = ReplicateConfig()
    grouped.group_ids = ["one", "two"]
    assert store.put(key + "1", b"x", grouped) == -600
    assert store.put_batch([key + "1", key + "2"], [b"x", b"y"], grouped) == 0
