"""What a client makes of a task that cannot be done. Those that can are tried with masters, in ``test_compat``."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any, cast

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import TaskAssignment, TaskDone, TaskStatus, TaskType
from p2pstore.kv.client import tasks as module
from p2pstore.kv.client.master import Master
from p2pstore.kv.client.plane import DataPlane
from p2pstore.kv.client.tasks import MAX_RETRIES, Tasks

PAYLOAD = json.dumps({"key": "k", "source": "a:1", "targets": ["b:1"]})


class NoRoom:
    """A master that asks for one copy and has no room for it."""

    client = bytes(16)
    tenant = "default"

    def __init__(self, retries: int) -> None:
        self.calls: Counter[str] = Counter()
        self.done: list[TaskDone] = []
        self._task = TaskAssignment(bytes(16), TaskType.COPY, PAYLOAD, 0, retries)

    def tasks(self, most: int) -> list[TaskAssignment]:
        assert most > 0
        return [self._task]

    def call(self, method: str, *args: Any) -> Code:
        self.calls[method] += 1
        if method == "MarkTaskToComplete":
            self.done.append(args[1])
            return Code.OK
        return Code.NO_SPACE


def work(master: NoRoom, ending: threading.Event) -> None:
    Tasks(cast("Master", master), cast("DataPlane", None)).work(ending)


@pytest.mark.parametrize(("retries", "tried"), [(0, 1), (2, 3), ((1 << 32) - 1, MAX_RETRIES + 1)])
def test_a_copy_without_room_is_tried_again_as_often_as_the_master_says_and_no_more_than_is_sensible(
    monkeypatch: pytest.MonkeyPatch, retries: int, tried: int
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    master = NoRoom(retries)
    work(master, threading.Event())
    assert master.calls == {"CopyStart": tried, "MarkTaskToComplete": 1}
    assert master.done == [TaskDone(bytes(16), TaskStatus.FAILED, Code.NO_SPACE.sentence)]


def test_a_client_that_ends_does_not_try_again() -> None:
    master, ending = NoRoom(10), threading.Event()
    ending.set()
    work(master, ending)
    assert master.calls["CopyStart"] == 1
    assert master.done[0].status == TaskStatus.FAILED
    assert "closed" in master.done[0].message
