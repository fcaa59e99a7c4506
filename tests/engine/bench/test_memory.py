from __future__ import annotations

import pytest

from engine.bench.memory import PERIOD, Memory, pattern
from engine.errors import StorageError


def test_a_byte_of_the_pattern_depends_on_its_place_and_seed() -> None:
    whole = pattern(1, 0, 3 * PERIOD)
    assert pattern(1, 1000, 2 * PERIOD) == whole[1000 : 1000 + 2 * PERIOD]
    assert pattern(1, 0, 64) != pattern(2, 0, 64)
    assert len({pattern(1, at << 16, 64) for at in range(1000)}) == 1000


def test_memory_holds_what_was_filled_in() -> None:
    memory = Memory(3 << 20)
    assert memory.first_difference(0, 0, memory.length) is None
    memory.fill(5, 1000, 2_000_000)
    assert memory.first_difference(5, 1000, 2_000_000) is None
    assert memory.first_difference(0, 0, 1000) is None
    assert memory.first_difference(0, 2_001_000, memory.length - 2_001_000) is None
    assert 1000 <= (memory.first_difference(0, 0, memory.length) or 0) < 1016


def test_the_first_wrong_byte_is_found() -> None:
    memory = Memory(3 << 20)
    for place in (0, 1_048_575, 1_048_576, 2_500_000, memory.length - 1):
        memory.map[place] ^= 1
        assert memory.first_difference(0, 0, memory.length) == place
        memory.map[place] ^= 1


def test_two_blocks_that_changed_places_are_found() -> None:
    memory = Memory(4 << 20)
    one, two = memory.map[0 : 1 << 20], memory.map[1 << 20 : 2 << 20]
    memory.map[0 : 1 << 20], memory.map[1 << 20 : 2 << 20] = two, one
    assert memory.first_difference(0, 0, memory.length) is not None


def test_too_much_memory_is_a_sentence() -> None:
    with pytest.raises(StorageError, match="memory: "):
        Memory(1 << 60)
