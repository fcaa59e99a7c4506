"""One job as data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from p2pstore.agent.job import DONE, FAILED, MAX_NOTES, Job, parse_job
from p2pstore.errors import ObjectNotFound


def job(**changes: Any) -> Job:
    return Job(**{"id": 3, "name": "a/b", "dest": "/d", "asked": {"wait": "for-ever"}, "began": 7.5, **changes})


def test_it_is_the_same_on_the_other_side() -> None:
    running, done, failed = job(), job(id=4), job(id=5)
    running.hear({"event": "progress", "done": 1, "total": 2})
    running.hear({"event": "note", "text": "hm"})
    done.end(DONE, {"size": 1}, 8.0)
    failed.end(FAILED, ObjectNotFound(name="a/b"), 9.0)
    for each in (running, done, failed):
        assert parse_job(json.loads(json.dumps(each.document()))) == each
    assert [each.document()["exit_code"] for each in (running, done, failed)] == [None, 0, 3]
    assert running.document()["progress"] == {"done": 1, "total": 2}


def test_the_last_notes_are_kept() -> None:
    made = job()
    for number in range(MAX_NOTES + 5):
        made.hear({"event": "note", "text": str(number)})
    assert made.notes == [str(number) for number in range(5, MAX_NOTES + 5)]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x"},
        {"state": "asleep"},
        {"asked": 7},
        {"error": {"type": "ObjectNotFound"}},
        {"error": {"exit_code": "3"}},
        {"result": "all of it"},
        {"notes": None},
        {"began": None},
    ],
)
def test_what_is_no_job(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse_job({**job().document(), **change})
    with pytest.raises(ValueError):
        parse_job(None)
