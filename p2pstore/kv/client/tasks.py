"""Copies and moves of replicas that the master asks a client for."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import MooncakeError
from engine.rpc.codes import Code
from engine.rpc.messages import CopyPlan, Memory, MovePlan, Replica, TaskAssignment, TaskDone, TaskStatus, TaskType
from p2pstore.kv.client.plane import Piece

if TYPE_CHECKING:
    from p2pstore.kv.client.master import Master
    from p2pstore.kv.client.plane import DataPlane

AT_ONCE = 16
"""Tasks that are asked for at a time."""

RETRY_SECONDS = 0.05
"""Times the number of the attempt: the pause before a copy that found no room is tried again."""

MAX_RETRIES = 10
"""Of such a copy, however many the master allows: upstream's allow so many, and other tasks wait meanwhile."""

STEP = 8 << 20
"""Bytes of a value from elsewhere that are held here at a time."""

ENDED = "the client that was to do it was closed"

log = logging.getLogger(__name__)


class Tasks:
    """Does tasks one after the other, in whatever thread calls ``work``."""

    def __init__(self, master: Master, plane: DataPlane) -> None:
        self._master = master
        self._plane = plane
        self.done = 0
        """Tasks that succeeded."""

    def work(self, ending: threading.Event) -> None:
        """Fetch what there is and do it; what is left when ``ending`` is set fails. Raises ``MasterUnavailable``."""
        assigned = self._master.tasks(AT_ONCE)
        if isinstance(assigned, Code):
            log.warning("the store's master does not say what is to be done: %s", assigned.sentence)
            return
        for task in assigned:
            try:
                why = self._do(task, ending)
            except (MooncakeError, ValueError, KeyError, TypeError) as error:
                why = f"{type(error).__name__}: {error}"
            self.done += not why
            if why:
                log.warning("a replica could not be copied or moved: %s", why)
            status = TaskStatus.FAILED if why else TaskStatus.SUCCESS
            self._master.call("MarkTaskToComplete", self._master.client, TaskDone(task.id, status, why or "done"))

    def _do(self, task: TaskAssignment, ending: threading.Event) -> str:
        """Do one task; why it failed, or nothing. Raises what a payload that makes no sense leads to."""
        payload = json.loads(task.payload)
        key = str(payload["key"])
        tenant = str(payload.get("tenant_id") or self._master.tenant)
        if task.type == TaskType.COPY:
            verb, rest = "Copy", (str(payload["source"]), [str(each) for each in payload["targets"]])
        elif task.type == TaskType.MOVE:
            verb, rest = "Move", (str(payload["source"]), str(payload["target"]))  # type: ignore[assignment]
        else:
            return f"there is no task of type {task.type}"
        attempt = 0
        while True:
            plan = self._master.call(f"{verb}Start", self._master.client, key, tenant, *rest)
            attempt += 1
            if plan is not Code.NO_SPACE or attempt > min(task.retries, MAX_RETRIES):
                break
            if ending.wait(RETRY_SECONDS * attempt):
                return ENDED
        if isinstance(plan, Code):
            return plan.sentence
        why = self._carry_out(plan.source, _targets(plan), ending)
        code = self._master.call(f"{verb}{'Revoke' if why else 'End'}", self._master.client, key, tenant)
        return why or (code.sentence if isinstance(code, Code) and code is not Code.OK else "")

    def _carry_out(self, source: Replica, targets: Sequence[Replica], ending: threading.Event) -> str:
        """Copy a replica's bytes; why that failed, or nothing."""
        place = source.place
        if not isinstance(place, Memory):
            return "the source does not lie in memory"
        for at in range(0, place.size, STEP):
            if ending.is_set():
                return ENDED
            count = min(STEP, place.size - at)
            view = self._plane.in_place(place.endpoint, place.address + at, count)
            if view is None:
                view = memoryview(bytearray(count))
                (fault,) = self._plane.read([Piece(place.endpoint, place.address + at, view)])
                if fault is not None:
                    return str(fault)
            pieces: list[Piece] = []
            for target in targets:
                if not isinstance(target.place, Memory):
                    return "the target does not lie in memory"
                pieces.append(Piece(target.place.endpoint, target.place.address + at, view))
            why = next((str(fault) for fault in self._plane.write(pieces) if fault is not None), "")
            if why:
                return why
        return ""


def _targets(plan: CopyPlan | MovePlan) -> list[Replica]:
    if isinstance(plan, CopyPlan):
        return plan.targets
    return [] if plan.target is None else [plan.target]
