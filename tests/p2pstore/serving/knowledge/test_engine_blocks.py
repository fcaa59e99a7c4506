"""The engine's blocks of four tokens, and the policy's of eight."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.events import Block, Removed, Stored
from p2pstore.serving.knowledge import engine_blocks
from p2pstore.serving.knowledge.engine_blocks import EngineBlocks
from p2pstore.serving.knowledge.vllm_events import BlocksRemoved, BlocksStored, Cleared


def key(before: Block | None, tokens: Sequence[int]) -> Block:
    return (before, tuple(tokens))


def made() -> EngineBlocks:
    return EngineBlocks("engine", 8, key)


def stored(hashes: Sequence[int], parent: int | None = None, first: int = 0, **more: object) -> BlocksStored:
    return BlocksStored(hashes, parent, range(first, first + 4 * len(hashes)), 4, **more)  # type: ignore[arg-type]


ONE = (None, tuple(range(8)))
TWO = (ONE, tuple(range(8, 16)))


def test_a_block_of_the_policys_is_held_while_all_its_parts_are() -> None:
    blocks = made()
    assert blocks.handle(stored([1])) == []
    assert blocks.handle(stored([2, 3], 1, 4)) == [Stored("engine", [ONE])]
    assert blocks.handle(stored([4], 3, 12)) == [Stored("engine", [TWO])]
    assert blocks.handle(BlocksRemoved([3])) == [Removed("engine", [TWO])]
    assert blocks.handle(BlocksRemoved([4])) == []
    assert blocks.handle(stored([3, 4], 2, 8)) == [Stored("engine", [TWO])]
    assert blocks.handle(BlocksRemoved([1])) == [Removed("engine", [ONE])]
    assert blocks.held == {TWO}
    assert (blocks.key_of(2), blocks.key_of(4), blocks.key_of(3)) == (ONE, TWO, None)


def test_a_block_in_two_media_is_there_until_it_is_in_none() -> None:
    blocks = made()
    blocks.handle(stored([1, 2]))
    blocks.handle(stored([1, 2], medium="CPU"))
    assert blocks.handle(BlocksRemoved([1, 2])) == []
    assert blocks.handle(BlocksRemoved([1, 2], "CPU")) == [Removed("engine", [ONE])]


def test_prompts_that_part_in_the_middle_of_a_block_have_two() -> None:
    blocks = made()
    blocks.handle(stored([1, 2]))
    assert blocks.handle(stored([9], 1, 100)) == [Stored("engine", [(None, (0, 1, 2, 3, 100, 101, 102, 103))])]
    (event,) = blocks.handle(BlocksRemoved([1]))
    assert len(event.blocks) == 2


def test_what_is_stored_behind_something_unknown_is_not_known() -> None:
    blocks = made()
    assert blocks.handle(stored([5, 6], 4)) == []
    assert blocks.unknown == 2
    assert blocks.handle(BlocksRemoved([5])) == []


def test_after_a_clearing_nothing_is_held() -> None:
    blocks = made()
    blocks.handle(stored([1, 2]))
    assert blocks.handle(Cleared()) == [Removed("engine", [ONE])]
    assert blocks.handle(Cleared()) == []
    assert blocks.handle(stored([1, 2])) == [Stored("engine", [ONE])]


@pytest.mark.parametrize("more", [{"plain": False}, {"group": 1}, {"size": 3}])
def test_what_the_policy_has_no_block_for_is_left_out(more: dict[str, int]) -> None:
    size = more.get("size", 4)
    event = BlocksStored([1, 2], None, range(2 * size), size, plain=more.get("plain", True), group=more.get("group", 0))
    assert made().handle(event) == []


def test_with_too_many_it_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_blocks, "MAX_NODES", 3)
    blocks = made()
    blocks.handle(stored([1, 2]))
    assert blocks.handle(stored([7, 8], None, 50)) == [
        Removed("engine", [ONE]),
        Stored("engine", [(None, tuple(range(50, 58)))]),
    ]


def test_what_the_engine_has_no_more_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_blocks, "MAX_NODES", 5)
    blocks = made()
    blocks.handle(stored([1, 2, 3, 4]))
    blocks.handle(BlocksRemoved([2, 3]))
    assert blocks.held == frozenset()
    assert blocks.handle(stored([7, 8], None, 50)) == [Stored("engine", [(None, tuple(range(50, 58)))])]
    assert (blocks.key_of(2), blocks.key_of(4)) == (None, None)
    assert blocks.handle(stored([5], 4, 16)) == []  # what is before it was forgotten
    assert blocks.unknown == 1
    assert blocks.handle(stored([9], 1, 4)) == [Stored("engine", [ONE])]
    assert blocks.handle(BlocksRemoved([1])) == [Removed("engine", [ONE])]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=60))
def test_what_is_told_adds_up_to_what_is_held(steps: list[tuple[bool, int]]) -> None:
    """A chain of eight blocks of the engine's, four of the policy's: stored from the beginning on, or removed singly."""
    blocks = made()
    told: set[Block] = set()
    there: set[int] = set()
    for store, number in steps:
        if store:
            events = blocks.handle(stored(range(1, number + 1)))
            there |= set(range(1, number + 1))
        else:
            events = blocks.handle(BlocksRemoved([number]))
            there.discard(number)
        for event in events:
            if isinstance(event, Stored):
                assert told.isdisjoint(event.blocks)
                told |= set(event.blocks)
            else:
                assert told.issuperset(event.blocks)
                told -= set(event.blocks)
        assert told == blocks.held
        assert len(told) == sum({2 * pair + 1, 2 * pair + 2} <= there for pair in range(4))
