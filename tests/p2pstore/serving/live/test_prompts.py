from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.live.prompts import BLOCK_TOKENS, WORDS, prompt, scaled
from p2pstore.serving.simulation.trace import Request


def test_equal_blocks_are_equal_text_up_to_where_they_part() -> None:
    one = prompt(Request(0.0, 3 * BLOCK_TOKENS, 1, (1, 2, 3)))
    two = prompt(Request(9.0, 3 * BLOCK_TOKENS, 1, (1, 2, 4)))
    assert one != two
    pairs = zip(one.split(), two.split(), strict=True)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert 2 * BLOCK_TOKENS <= shared < 2 * BLOCK_TOKENS + 20


def test_the_same_request_is_the_same_text_in_every_run() -> None:
    assert prompt(Request(0.0, 4, 1, (7,))) == prompt(Request(5.0, 4, 1, (7,))) == "force idea face reason"


@given(st.integers(1, 5000), st.lists(st.integers(0, 9), max_size=8), st.sampled_from([1.0, 3.0, 16.0, 512.0]))
def test_a_prompt_has_as_many_words_as_wanted(length: int, blocks: list[int], scale: float) -> None:
    words = prompt(Request(1.0, length, 1, tuple(blocks)), scale).split()
    assert len(words) == scaled(length, scale)
    assert set(words) <= set(WORDS)


@pytest.mark.parametrize(("length", "scale", "wanted"), [(1, 16, 1), (512, 16, 32), (100, 1, 100)])
def test_no_length_is_scaled_to_nothing(length: int, scale: float, wanted: int) -> None:
    assert scaled(length, scale) == wanted
