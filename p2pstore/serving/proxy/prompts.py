"""How long a prompt is, and which of its prefixes others have: estimated from its text, for want of a tokenizer. Pure.

A block is so many tokens of a prompt that comes as token ids, or the bytes that as many tokens of text take on average.
Its key is a hash of it and of all before it, with the model's name and the tools, so that equal keys mean equal
prefixes. An engine's own blocks end elsewhere: of these keys only the proxy knows.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import xxhash

from p2pstore.serving.proxy.requests import Asked

BYTES_PER_TOKEN = 4
"""Of text in UTF-8, on average: English has some 4, and Chinese, at 3 a character, somewhat less."""

MAX_BLOCKS = 4096
"""Of one prompt that get keys; what follows them is placed with them."""


_MAX_ID = 2**63

FOR_TOKENIZER = (
    "model",
    "messages",
    "tools",
    "add_special_tokens",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "chat_template_kwargs",
)
"""What of a request makes its prompt what it is, by vLLM's ``/tokenize``."""


class Prompt(NamedTuple):
    """Estimated tokens, and the keys of its whole blocks; none where nobody asked for them."""

    length: int
    blocks: tuple[int, ...]


def measured(body: Mapping[str, Any], block_tokens: int, *, keys: bool) -> Prompt:
    """The prompt of a request's body. What is malformed has some length: the instance will say what is wrong."""
    prompt = body.get("prompt")
    if "messages" not in body and isinstance(prompt, list) and prompt and isinstance(prompt[0], (list, str)):
        each = [_of(one, block_tokens) for one in prompt]
        length = sum(length for length, _, _ in each)
        _, data, size = each[0]  # of a batch the first says where it goes
    else:
        length, data, size = _of(body.get("messages", prompt), block_tokens)
    if not keys:
        return Prompt(max(1, length), ())
    return Prompt(max(1, length), _keys(_salt(body), data, size))


def of_tokens(tokens: Sequence[int], block_tokens: int, body: Mapping[str, Any]) -> Prompt:
    """A prompt that was taken apart; what a request's ``cache_salt`` sets apart has keys that no engine tells of."""
    salt = body.get("cache_salt")
    key: int | None = None if salt is None else xxhash.xxh3_64_intdigest(json.dumps(salt).encode())
    keys = []
    for at in range(0, min(len(tokens) // block_tokens, MAX_BLOCKS) * block_tokens, block_tokens):
        key = token_key(key, tokens[at : at + block_tokens])
        keys.append(key)
    return Prompt(max(1, len(tokens)), tuple(keys))


def token_key(before: Hashable, tokens: Sequence[int]) -> int:
    """The key of a block of tokens, from that of the one before it (None: it is the first)."""
    seed = before if isinstance(before, int) else 0
    return xxhash.xxh3_64_intdigest(_ids(tokens), seed)


def tokenize_body(asked: Asked) -> bytes | list[int] | None:
    """What ``POST /tokenize`` is asked; the tokens where they are there already; None where it cannot be asked."""
    body = asked.body
    prompt = body.get("prompt")
    if "messages" not in body and isinstance(prompt, list):
        first = prompt[0] if prompt and isinstance(prompt[0], (list, str)) else prompt
        if isinstance(first, list):
            return first if all(type(token) is int and 0 <= token < _MAX_ID for token in first) else None
        prompt = first
    if "messages" not in body and not isinstance(prompt, str):
        return None
    chosen = {key: body[key] for key in FOR_TOKENIZER if key in body}
    if "messages" not in body:
        chosen["prompt"] = prompt
    return json.dumps(chosen).encode()


def _of(prompt: Any, block_tokens: int) -> tuple[int, bytes, int]:
    """Tokens, the bytes that are hashed, and the bytes of a block."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        data = _ids(prompt)
        return len(prompt), data, block_tokens * 8
    text = prompt if isinstance(prompt, str) else _messages(prompt)
    data = text.encode("utf-8", errors="surrogatepass")
    return len(data) // BYTES_PER_TOKEN, data, block_tokens * BYTES_PER_TOKEN


def _ids(ids: Sequence[Any]) -> bytes:
    try:
        return array("q", ids).tobytes()
    except (TypeError, OverflowError):
        return b""  # no ids after all


def _messages(messages: Any) -> str:
    if not isinstance(messages, list):
        return ""
    return "".join(map(_message, messages))


def _message(message: Any) -> str:
    if isinstance(message, dict) and isinstance(message.get("content"), str) and len(message) == 2:
        return f"\0{message.get('role')}\0{message['content']}"
    return "\0" + json.dumps(message)


def _salt(body: Mapping[str, Any]) -> int:
    parts = [body.get(key) for key in ("model", "cache_salt", "tools")]
    return xxhash.xxh3_64_intdigest(json.dumps(parts).encode())


def _keys(salt: int, data: bytes, size: int) -> tuple[int, ...]:
    keys = []
    view = memoryview(data)
    for at in range(0, min(len(data) // size, MAX_BLOCKS) * size, size):
        salt = xxhash.xxh3_64_intdigest(view[at : at + size], salt)
        keys.append(salt)
    return tuple(keys)
