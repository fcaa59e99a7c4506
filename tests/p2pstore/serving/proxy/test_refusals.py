"""Which errors of an instance are the client's."""

from __future__ import annotations

from typing import Any

import pytest

from p2pstore.serving.events import Kind
from p2pstore.serving.proxy import refusals
from p2pstore.serving.proxy.fleet import Member, Place
from p2pstore.serving.proxy.health import Health
from p2pstore.serving.proxy.upstream import InstanceFailed

MEMBER = Member(Place("h", 1), Kind.DECODE, Health(0.0))
BODY = b'{"error": {"message": "no"}}'


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 499])
def test_the_clients_own_are_the_clients(status: int) -> None:
    said = refusals.of_answer(MEMBER, status, BODY, {"x-why": "so"})
    assert (said.status, said.body, said.headers) == (status, BODY, {"x-why": "so"})


@pytest.mark.parametrize(("status", "busy"), [(429, True), (500, False), (503, False), (599, False)])
def test_what_another_may_do_better_is_kept_for_the_last(status: int, busy: bool) -> None:
    with pytest.raises(InstanceFailed) as failed:
        refusals.of_answer(MEMBER, status, BODY, {})
    assert failed.value.answer is not None
    assert (failed.value.answer.status, failed.value.answer.body, failed.value.busy) == (status, BODY, busy)


@pytest.mark.parametrize("status", [204, 302])
def test_what_is_no_error_and_no_answer_either(status: int) -> None:
    with pytest.raises(InstanceFailed, match=str(status)) as failed:
        refusals.of_answer(MEMBER, status, b"", {})
    assert failed.value.answer is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 400}, 400),
        ({"code": 404, "message": "no"}, 404),
        *(({"code": code}, None) for code in (429, 500, 200, "x")),
        ({}, None),
        ("no", None),
    ],
)
def test_a_stream_that_begins_with_one_has_its_status(error: Any, status: int | None) -> None:
    if status is None:
        with pytest.raises(InstanceFailed):
            refusals.of_stream(MEMBER, {"error": error})
    else:
        assert refusals.of_stream(MEMBER, {"error": error}).status == status
