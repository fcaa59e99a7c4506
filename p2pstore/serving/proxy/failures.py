"""What a client is told in OpenAI's words: error bodies, and the last event of a stream that breaks off. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

INVALID = "invalid_request_error"
LIMITED = "rate_limit_error"
SERVER = "server_error"
REFUSED = "permission_error"

MAX_DETAIL = 500
"""Characters of what an instance said that are shown where it is no JSON."""


@dataclass(frozen=True)
class Answer:
    """An answer to a client: status, body, and headers that are not the connection's."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def error(
    status: int,
    message: str,
    *,
    kind: str = INVALID,
    code: str | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> Answer:
    """An error as OpenAI's API has it. ``retry_after`` in seconds."""
    headers = {"Content-Type": "application/json"}
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, round(retry_after + 0.5)))
    return Answer(status, error_body(message, kind=kind, code=code, param=param), headers)


def error_body(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """The JSON of an error."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def busy(why: str, retry_after: float) -> Answer:
    """There is too much to do."""
    return error(429, f"{why}; come again later", kind=LIMITED, code="busy", retry_after=retry_after)


def ending() -> Answer:
    """The proxy ends."""
    return error(503, "the proxy is ending", kind=SERVER, code="ending")


def too_late(reason: str, what: str, seconds: float, retry_after: float) -> Answer:
    """What is predicted is over an objective."""
    how = f"{what} would come after {seconds:.2f} s, which is later than what is promised here"
    return error(429, how, kind=LIMITED, code=reason, retry_after=retry_after)


def no_instance(lacking: Sequence[str], retry_after: float) -> Answer:
    """Nobody is there: ``lacking`` are the kinds of instances that are missed."""
    said = f"no {' and no '.join(lacking) or 'other'} instance takes requests at the moment"
    return error(503, said, kind=SERVER, code="no_instance", retry_after=retry_after)


def instance_failed(kind: str = "", detail: str = "") -> Answer:
    """An instance did not do what it was asked. Which one is the operator's business, and in the log."""
    said = f"the {kind} instance failed: {detail}" if kind else "the instance is gone"
    return error(502, said, kind=SERVER, code="instance_failed")


def last_event(answer: Answer) -> bytes:
    """The event that ends a stream which breaks off. No ``[DONE]`` follows: it is not done."""
    return b"data: " + b" ".join(answer.body.splitlines()) + b"\n\n"


def dumped(said: Mapping[str, object]) -> bytes:
    """An instance's error, written anew."""
    return json.dumps(said).encode()


def as_error(status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
    """An instance's refusal as it is, or in OpenAI's form where it is not JSON."""
    if is_json(body):
        return Answer(status, body, headers)
    said = body[: 4 * MAX_DETAIL].decode("utf-8", errors="replace")[:MAX_DETAIL].strip() or "no reason"
    kept = {key: value for key, value in headers.items() if key.lower() != "content-type"}
    made = error_body(said, kind=SERVER if status >= 500 else INVALID, code=None)
    return Answer(status, made, {**kept, "Content-Type": "application/json"})


def is_json(body: bytes) -> bool:
    """Whether it is a JSON object."""
    return parsed(body) is not None


def parsed(body: bytes) -> dict[str, object] | None:
    """A JSON object, or None for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
