"""What instances are sent for a request."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.serving.proxy.requests import (
    CHAT,
    COMPLETIONS,
    BadRequest,
    decode_body,
    decode_transfer,
    parse,
    prefill_body,
    prefill_transfer,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["prompt", "messages", "max_tokens", "max_completion_tokens", "n", "stream", "stream_options", "tools", "tool_choice",
     "echo", "logprobs", "prompt_logprobs", "min_tokens", "kv_transfer_params", "user"]
)  # fmt: skip


def copy(path: str = CHAT, **body: Any) -> dict[str, Any]:
    made = json.loads(prefill_body(parse(path, json.dumps(body).encode()), None))
    assert isinstance(made, dict)
    return made


def test_the_copy_for_prefill() -> None:
    assert copy(messages=[], max_tokens=100, temperature=0.5) == {
        "messages": [],
        "max_tokens": 1,
        "temperature": 0.5,
        "stream": False,
    }
    dropped = copy(stream_options={}, min_tokens=5, best_of=2, logprobs=True, top_logprobs=3, echo=True)
    assert dropped == {"max_tokens": 1, "stream": False}
    assert copy(max_completion_tokens=10)["max_completion_tokens"] == 1
    assert "max_completion_tokens" not in copy(max_tokens=1)  # engines that do not know it
    assert copy(n=4)["n"] == 1


@pytest.mark.parametrize(
    ("choice", "copied"),
    [("auto", "auto"), ("none", "none"), ("required", "none"), ({"type": "function"}, "none"), (None, None)],
)
def test_one_token_is_no_call_of_a_tool(choice: Any, copied: Any) -> None:
    assert copy(tools=[{}], tool_choice=choice)["tool_choice"] == copied


def test_the_decode_gets_what_came() -> None:
    raw = b'{ "prompt" : "x", "max_tokens": 7, "x": 1e400}'
    assert decode_body(parse(COMPLETIONS, raw), None) is raw


def test_kv_transfer() -> None:
    asked = parse(COMPLETIONS, b'{"prompt": "x", "kv_transfer_params": {"mine": 1}}')
    first = json.loads(prefill_body(asked, prefill_transfer("t")))["kv_transfer_params"]
    assert (first["mine"], first["do_remote_decode"], first["transfer_id"]) == (1, True, "t")
    kv = decode_transfer({"remote_block_ids": [1], "do_remote_prefill": False}, "t", "http://p:8998", "e")
    second = json.loads(decode_body(asked, kv))["kv_transfer_params"]
    assert second == {
        "mine": 1,
        "remote_block_ids": [1],
        "do_remote_decode": False,
        "do_remote_prefill": True,
        "transfer_id": "t",
        "remote_bootstrap_addr": "http://p:8998",
        "remote_engine_id": "e",
    }
    assert "remote_bootstrap_addr" not in decode_transfer(None, "t", None, None)


@pytest.mark.parametrize("key", ["do_remote_prefill", "do_remote_decode", "transfer_id", "remote_host", "remote_x"])
def test_clients_name_no_hosts(key: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(CHAT, json.dumps({"kv_transfer_params": {key: "x"}}).encode())
    assert caught.value.param == "kv_transfer_params"


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 5}, 5),
        ({"max_tokens": True}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": "7"}, None),
    ],
)
def test_limit(body: dict[str, Any], limit: int | None) -> None:
    assert parse(CHAT, json.dumps(body).encode()).limit == limit


@pytest.mark.parametrize(
    ("body", "alone"),
    [
        ({"prompt_logprobs": 0}, True),
        ({"prompt_logprobs": None}, False),
        ({"echo": True, "logprobs": 1}, True),
        ({"echo": True, "logprobs": 0}, True),
        ({"echo": True}, False),
        ({"logprobs": 1}, False),
    ],
)
def test_what_prefill_does_alone(body: dict[str, Any], alone: bool) -> None:
    assert parse(COMPLETIONS, json.dumps(body).encode()).alone is alone


@given(st.dictionaries(FIELDS, VALUES))
def test_any_object_is_copied_or_refused(body: dict[str, Any]) -> None:
    try:
        asked = parse(CHAT, json.dumps(body).encode())
    except BadRequest:
        return
    made = json.loads(prefill_body(asked, None))
    assert (made["max_tokens"], made["stream"]) == (1, False)
    json.loads(decode_body(asked, decode_transfer(None, "t", None, None)))


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    with contextlib.suppress(BadRequest):
        parse(CHAT, raw)
