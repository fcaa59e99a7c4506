"""What a client asks, and what an instance is sent for it. Pure.

A request goes to two instances. The prefill instance gets a copy that ends after one token, and is not streamed, so
that its KV cache is there when the decode instance gets the request as it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"

MAX_BODY_BYTES = 64 << 20
"""Of a request: chats bring images along."""

NOT_FOR_PREFILL = frozenset(
    {"stream_options", "min_tokens", "best_of", "use_beam_search", "echo", "logprobs", "top_logprobs"}
)
"""What says something about the output alone, and contradicts an output of one token or makes it dear."""

OURS = frozenset({"do_remote_prefill", "do_remote_decode", "transfer_id"})
OURS_PREFIX = "remote_"
"""Of ``kv_transfer_params``, what only the proxy may say: it names hosts that engines then connect to."""


class BadRequest(Exception):
    """A client's request cannot be sent on. ``param`` is the field that is wrong, where it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's request: as it came, and what it says."""

    path: str
    raw: bytes
    body: Mapping[str, Any]
    stream: bool
    limit: int | None
    """Output tokens at most, where it says so."""
    alone: bool
    """The prefill instance is to do all of it: log-probabilities of the prompt are nowhere else, and a decode instance
    that is asked for them dies (vllm-ascend#13363)."""


def parse(path: str, raw: bytes) -> Asked:
    """A request's body. Raises ``BadRequest``."""
    try:
        body = json.loads(raw)
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    stream = body.get("stream")
    if stream not in (None, True, False):
        raise BadRequest("'stream' must be true or false", "stream")
    given = body.get("kv_transfer_params")
    if isinstance(given, dict) and any(key in OURS or str(key).startswith(OURS_PREFIX) for key in given):
        raise BadRequest("where the KV cache comes from is decided here, not by clients", "kv_transfer_params")
    return Asked(path, raw, body, bool(stream), _limit(body), _wants_prompt_logprobs(body))


def prefill_body(asked: Asked, kv: Mapping[str, Any] | None) -> bytes:
    """What a prefill instance is sent; ``kv`` are its ``kv_transfer_params``, where it has some."""
    body = {key: value for key, value in asked.body.items() if key not in NOT_FOR_PREFILL}
    body["max_tokens"] = 1
    if "max_completion_tokens" in body:
        body["max_completion_tokens"] = 1
    if body.get("n") is not None:
        body["n"] = 1
    body["stream"] = False
    if body.get("tool_choice") not in (None, "auto", "none"):
        # One token is no whole call of a tool, and engines fail when they parse it. The prompt stays the same.
        body["tool_choice"] = "none"
    if kv is not None:
        body["kv_transfer_params"] = {**_given(asked), **kv}
    return json.dumps(body, separators=(",", ":")).encode()


def decode_body(asked: Asked, kv: Mapping[str, Any] | None) -> bytes:
    """What a decode instance is sent: what came, but for ``kv``."""
    if kv is None:
        return asked.raw
    body = {**asked.body, "kv_transfer_params": {**_given(asked), **kv}}
    return json.dumps(body, separators=(",", ":")).encode()


def prefill_transfer(transfer: str) -> dict[str, Any]:
    """The ``kv_transfer_params`` of a prefill whose KV cache a decode instance will ask for (vLLM 0.32)."""
    return {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
        "transfer_id": transfer,
    }


def decode_transfer(
    answered: Mapping[str, Any] | None, transfer: str, bootstrap: str | None, engine: str | None
) -> dict[str, Any]:
    """Those of the decode that follows.

    ``answered`` are what the prefill's answer had (NIXL's connectors say there what their decode needs); ``bootstrap``
    is the URL of the prefill instance's bootstrap server, and ``engine`` its id there (Mooncake's connector).
    """
    made = {**(answered or {}), "do_remote_decode": False, "do_remote_prefill": True, "transfer_id": transfer}
    if bootstrap is not None:
        made |= {"remote_bootstrap_addr": bootstrap, "remote_engine_id": engine}
    return made


def _given(asked: Asked) -> Mapping[str, Any]:
    given = asked.body.get("kv_transfer_params")
    return given if isinstance(given, dict) else {}


def _limit(body: Mapping[str, Any]) -> int | None:
    for key in ("max_completion_tokens", "max_tokens"):
        limit = body.get(key)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return limit
    return None


def _wants_prompt_logprobs(body: Mapping[str, Any]) -> bool:
    if body.get("prompt_logprobs") is not None:
        return True
    wanted = body.get("logprobs")
    return bool(body.get("echo")) and wanted is not None and wanted is not False
