"""What an instance's error means: it is the client's to have, or another instance may do better. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from p2pstore.serving.proxy import failures
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.fleet import Member
from p2pstore.serving.proxy.upstream import BUSY, InstanceFailed

ELSEWHERE = frozenset({BUSY, *range(500, 600)})
"""Statuses of an instance after which another is asked. Other errors are the client's."""


def of_answer(member: Member, status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
    """An answer that is an error: what the client gets. Raises ``InstanceFailed`` where another may do better."""
    said = failures.as_error(status, body, headers)
    if status in ELSEWHERE:
        raise InstanceFailed(member, f"it answers with status {status}", answer=said)
    if status < 400:
        raise InstanceFailed(member, f"it answers with status {status}")
    return said


def of_stream(member: Member, problem: Mapping[str, Any]) -> Answer:
    """A stream that begins with an error: with the status that it would have had. Raises as above."""
    error = problem["error"]
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    text = error.get("message") if isinstance(error, dict) else error
    said = Answer(status, failures.dumped(problem), {"Content-Type": "application/json"})
    if status in ELSEWHERE:
        raise InstanceFailed(member, f"its stream is an error: {str(text)[: failures.MAX_DETAIL]}", answer=said)
    return said
