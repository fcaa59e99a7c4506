"""One get that the agent makes by itself: what was asked for, how far it is, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from p2pstore.errors import MooncakeError, to_wire

RUNNING, DONE, FAILED, CANCELLED, CUT = "running", "done", "failed", "cancelled", "cut"
STATES = (RUNNING, DONE, FAILED, CANCELLED, CUT)
"""Of a job. One that the agent's end has cut short is ``cut``; what came of it stays, as of any get."""

MAX_NOTES = 20
"""Of a job's notes, so many are kept: the last."""

ASKED = (
    "transport",
    "peers",
    "seed",
    "force",
    "wipe",
    "update",
    "update",
    "tensors",
    "include",
    "exclude",
    "range",
    "wait",
    "retries",
    "timeout",
)
"""What is kept of how a get was asked for; its name and its destination stand beside that."""


@dataclass
class Job:
    """A get in the background. Times are seconds since the epoch.

    ``asked`` says how it was asked for, by ``ASKED``. ``progress`` is the last event of that kind. When it has ended,
    it has a ``result``, or the ``error``, as ``to_wire`` has it.
    """

    id: int
    name: str
    dest: str
    asked: dict[str, Any]
    began: float
    state: str = RUNNING
    ended: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state == RUNNING

    def hear(self, event: Mapping[str, Any]) -> None:
        """Keep what an event says."""
        if event.get("event") == "progress":
            self.progress = {key: value for key, value in event.items() if key != "event"}
        elif event.get("event") == "note":
            self.notes = [*self.notes, str(event["text"])][-MAX_NOTES:]

    def end(self, state: str, outcome: dict[str, Any] | MooncakeError, moment: float) -> None:
        """It has ended so: with its result, or an error."""
        self.state, self.ended = state, moment
        if isinstance(outcome, MooncakeError):
            self.error = to_wire(outcome)
        else:
            self.result = outcome

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        code = None if self.running else self.error["exit_code"] if self.error is not None else 0
        return {
            "id": self.id,
            "name": self.name,
            "dest": self.dest,
            "state": self.state,
            "began": self.began,
            "ended": self.ended,
            "progress": self.progress,
            "notes": self.notes,
            "asked": self.asked,
            "result": self.result,
            "error": self.error,
            "exit_code": code,
        }


def parse_job(value: Any) -> Job:
    """A job from its ``document``. Raises ``ValueError`` for what is none."""
    try:
        job = Job(
            id=int(value["id"]),
            name=str(value["name"]),
            dest=str(value["dest"]),
            asked=dict(value["asked"]),
            began=float(value["began"]),
            state=str(value["state"]),
            ended=None if value["ended"] is None else float(value["ended"]),
            progress=dict(value["progress"]),
            notes=[str(note) for note in value["notes"]],
            result=None if value["result"] is None else dict(value["result"]),
            error=None if value["error"] is None else dict(value["error"]),
        )
        if job.state not in STATES or (job.error is not None and type(job.error["exit_code"]) is not int):
            raise ValueError("no job of ours")
    except (KeyError, TypeError) as error:
        raise ValueError("no job of ours") from error
    return job
