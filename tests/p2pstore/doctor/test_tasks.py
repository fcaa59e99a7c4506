"""What the doctor says of an agent's background tasks."""

from __future__ import annotations

import pytest

from p2pstore.doctor.tasks import check_tasks
from p2pstore.supervisor import Policy, Supervised


@pytest.mark.parametrize(
    ("policy", "running", "waiting", "verdict", "ending"),
    [
        (Policy.RESTART, 1, False, "warning", "RuntimeError: x"),
        (Policy.RESTART, 1, True, "failed", "; it will be started again"),
        (Policy.RESTART, 0, False, "failed", "; it has ended"),
        (Policy.ONCE, 0, False, "warning", "; it is not tried again"),
        (Policy.GO_ON, 1, False, "warning", "RuntimeError: x"),
    ],
)
def test_a_task_that_failed(policy: Policy, running: int, waiting: bool, verdict: str, ending: str) -> None:
    record = Supervised("lease keeper", "node", policy)
    record.failed(RuntimeError("x"), 1_787_392_800.0)
    record.running, record.waiting = running, waiting
    (check,) = check_tasks([record.to_json()])
    assert (check.verdict, check.code != 0) == (verdict, verdict == "failed")
    assert check.detail.startswith("lease keeper, once, last at 2026-08-22T10:00:00Z: RuntimeError: x")
    assert check.detail.endswith(ending)


def test_what_never_failed_is_not_mentioned() -> None:
    assert list(check_tasks([Supervised("lease keeper", "node", Policy.RESTART, running=1).to_json()])) == []


def test_an_agent_of_an_older_version_tells_of_no_tasks() -> None:
    assert list(check_tasks(None)) == []
