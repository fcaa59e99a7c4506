"""What a pool counts."""

from __future__ import annotations

from tests.p2pstore.kv.pool.pools import House


def test_values_are_counted_by_size() -> None:
    house = House()
    client = house.join("a")
    for number, size in enumerate([1, 4096, 4097, 1 << 20, 5 << 20]):
        house.put(client, [str(number)], size)
    stats = house.pool.stats
    assert stats.value_sizes == [2, 1, 0, 1, 0, 1, 0, 0]
    assert stats.value_bytes == 1 + 4096 + 4097 + (1 << 20) + (5 << 20)
    assert stats.key_count == 5
