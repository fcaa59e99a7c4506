"""Errors in OpenAI's words."""

from __future__ import annotations

import json

import pytest

from p2pstore.serving.proxy.failures import MAX_DETAIL, as_error, error, is_json, last_event


def test_an_error() -> None:
    answer = error(429, "come later", kind="rate_limit_error", code="busy", param="x", retry_after=2.2)
    assert answer.status == 429
    assert json.loads(answer.body) == {
        "error": {"message": "come later", "type": "rate_limit_error", "param": "x", "code": "busy"}
    }
    assert answer.headers == {"Content-Type": "application/json", "Retry-After": "3"}
    assert error(429, "x", retry_after=0.0).headers["Retry-After"] == "1"


def test_the_last_event_is_one_event() -> None:
    event = last_event(error(502, "it\n\nbroke\r\noff"))
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event.removeprefix(b"data: "))["error"]["message"] == "it\n\nbroke\r\noff"
    assert last_event(as_error(500, b'{\n "error": 1\n}', {})).count(b"\n") == 2


def test_what_an_instance_says_is_kept() -> None:
    body = b'{"error": {"message": "no"}}'
    assert as_error(400, body, {"x": "y"}).body is body
    made = as_error(503, b"<html>" + b"x" * 10_000, {"Content-Type": "text/html", "Retry-After": "5"})
    assert made.headers == {"Content-Type": "application/json", "Retry-After": "5"}
    said = json.loads(made.body)["error"]
    assert (len(said["message"]), said["type"]) == (MAX_DETAIL, "server_error")
    assert json.loads(as_error(404, b"\xff", {}).body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object(body: bytes) -> None:
    assert not is_json(body)
