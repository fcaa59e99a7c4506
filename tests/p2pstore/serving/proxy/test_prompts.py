"""Lengths and keys of prompts: equal beginnings have equal keys, whatever follows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.knowledge.engine_blocks import EngineBlocks
from p2pstore.serving.knowledge.vllm_events import BlocksStored
from p2pstore.serving.proxy.prompts import MAX_BLOCKS, Prompt, measured, of_tokens, token_key, tokenize_body
from p2pstore.serving.proxy.requests import CHAT, COMPLETIONS, parse

BLOCK = 4
"""Tokens; 16 bytes of text."""


def prompt(**body: Any) -> Prompt:
    return measured(body, BLOCK, keys=True)


def test_text() -> None:
    assert prompt(prompt="x" * 40) == (10, prompt(prompt="x" * 40 + "y").blocks)
    assert len(prompt(prompt="x" * 40).blocks) == 2
    assert prompt(prompt="x" * 40).blocks[0] != prompt(prompt="x" * 40).blocks[1]  # of the same text at another place
    assert prompt(prompt="").length == 1
    assert measured({"prompt": "x" * 40}, BLOCK, keys=False) == (10, ())


def test_equal_beginnings() -> None:
    first = prompt(prompt="a" * 16 + "b" * 16 + "c" * 16).blocks
    second = prompt(prompt="a" * 16 + "b" * 16 + "d" * 16).blocks
    assert first[:2] == second[:2]
    assert first[2] != second[2]
    assert not set(prompt(prompt="d" * 16 + "b" * 16).blocks) & set(first)


def test_other_models_tools_and_salts_share_nothing() -> None:
    bodies: list[dict[str, Any]] = [{}, {"model": "m"}, {"cache_salt": "s"}, {"tools": [{}]}]
    blocks = [prompt(prompt="a" * 16, **body).blocks[0] for body in bodies]
    assert len(set(blocks)) == 4


def test_turns_of_a_chat_share_their_beginning() -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s" * 40}, {"role": "user", "content": "u" * 40}]
    first = prompt(messages=messages).blocks
    parts = {"role": "user", "content": [{"type": "text", "text": "t" * 40}]}
    second = prompt(messages=[*messages, {"role": "assistant", "content": "a"}, parts]).blocks
    assert second[: len(first)] == first
    assert len(second) > len(first)


def test_token_ids() -> None:
    assert prompt(prompt=list(range(10))).length == 10
    assert len(prompt(prompt=list(range(10))).blocks) == 2
    assert prompt(prompt=list(range(8))).blocks == prompt(prompt=list(range(11))).blocks


def test_batches_are_as_long_as_all_and_go_where_the_first_goes() -> None:
    assert prompt(prompt=["a" * 40, "b" * 40]) == (20, prompt(prompt="a" * 40).blocks)
    assert prompt(prompt=[[1] * 8, [2] * 8]) == (16, prompt(prompt=[1] * 8).blocks)


def test_a_long_prompt_has_so_many_keys() -> None:
    assert len(prompt(prompt="x" * 16 * (MAX_BLOCKS + 5)).blocks) == MAX_BLOCKS


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": None},
        {"prompt": 7},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [1, "a"]},
        {"prompt": [2**70]},
        {"prompt": ["\ud800" * 16]},
        {"messages": None},
        {"messages": "hello"},
        {"messages": [1, None, {"role": 3, "content": None}]},
    ],
)
def test_what_is_malformed_has_some_length(body: dict[str, Any]) -> None:
    assert prompt(**body).length >= 1


def test_tokens_have_the_keys_that_engines_blocks_have() -> None:
    blocks = EngineBlocks("p", BLOCK, token_key)
    (said,) = blocks.handle(BlocksStored([b"1", b"2", b"3"], None, list(range(6)), 2))
    prompt = of_tokens(list(range(9)), BLOCK, {})
    assert prompt.length == 9
    assert tuple(said.blocks) == prompt.blocks[:1]
    (more,) = blocks.handle(BlocksStored([b"4"], b"3", [6, 7], 2))
    assert (*said.blocks, *more.blocks) == prompt.blocks
    salted = of_tokens(list(range(9)), BLOCK, {"cache_salt": "s"})
    assert not set(salted.blocks) & set(prompt.blocks)


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        (COMPLETIONS, {"prompt": "x", "model": "m", "max_tokens": 5}, {"prompt": "x", "model": "m"}),
        (
            COMPLETIONS,
            {"prompt": ["x", "y"], "add_special_tokens": False},
            {"prompt": "x", "add_special_tokens": False},
        ),
        (CHAT, {"messages": [1], "tools": [2], "stream": True}, {"messages": [1], "tools": [2]}),
    ],
)
def test_what_a_tokenizer_is_asked(path: str, body: dict[str, Any], asked: dict[str, Any]) -> None:
    made = tokenize_body(parse(path, json.dumps(body).encode()))
    assert isinstance(made, bytes)
    assert json.loads(made) == asked


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ([1, 2], [1, 2]),
        ([[1], [2]], [1]),
        ([], []),
        ([1, "a"], None),
        ([2**70], None),
        ([-1], None),
        (None, None),
        (7, None),
    ],
)
def test_what_needs_no_tokenizer(prompt: Any, found: list[int] | None) -> None:
    assert tokenize_body(parse(COMPLETIONS, json.dumps({"prompt": prompt}).encode())) == found


@given(st.text(max_size=200), st.text(max_size=200))
def test_keys_are_equal_as_far_as_texts_are(one: str, other: str) -> None:
    first, second = prompt(prompt=one).blocks, prompt(prompt=other).blocks
    a, b = one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass")
    shared = 0
    while a[shared * 16 : shared * 16 + 16] == b[shared * 16 : shared * 16 + 16] and shared < min(
        len(first), len(second)
    ):
        shared += 1
    for number, (x, y) in enumerate(zip(first, second, strict=False)):
        assert (x == y) is (number < shared)
