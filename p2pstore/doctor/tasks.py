"""What an agent's status tells of its background tasks, for people and for the doctor's verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from p2pstore.peers.checks import Check, failed, warning

ADVICE = "run 'mooncake node logs', and report what it shows as a bug"


def what_failed(task: Mapping[str, Any]) -> str:
    """One task of the status that failed, in a line."""
    times = "once" if task["failures"] == 1 else f"{task['failures']} times"
    return f"{task['name']}, {times}, last at {task['last_failure']}: {task['last_error']}{_since(task)}"


def _since(task: Mapping[str, Any]) -> str:
    if task["state"] == "restarting":
        return "; it will be started again"
    if task["state"] == "ended":
        return "; it is not tried again" if task["policy"] == "once" else "; it has ended"
    return ""


def check_tasks(tasks: object) -> Iterator[Check]:
    """A failure for each task that does not run now, a warning for each that failed and goes on."""
    for task in tasks if isinstance(tasks, list) else []:
        if not task["failures"]:
            continue
        if task["state"] == "running" or task["policy"] == "once":
            yield warning("background task", what_failed(task), ADVICE)
        else:
            yield failed("background task", what_failed(task), ADVICE, 1)
