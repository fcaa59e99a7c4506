"""The supervisor: every background task has an owner who hears of its end, and the status tells of it, too.

A task has a name, and a policy for the case that it fails: it is started again, or the node is ended, or it stays
ended. What failed, when and how often is counted for as long as the node lives, so that no restart hides a bug; and a
task that does nothing but fail ends the node after all.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from engine.net.backoff import Backoff
from engine.net.threads import Failure
from p2pstore.errors import MooncakeError, NodeEnded

log = logging.getLogger(__name__)

RESTARTS = Backoff(0.5, 30.0)
"""Pauses before a task that failed is started again."""

MAX_IN_A_ROW = 10
"""Failures after which a task is not started again but ends the node: with ``RESTARTS``, after about two minutes."""

STEADY_SECONDS = 60.0
"""A task that ran for so long before it failed has not failed in a row with what was before."""

MAX_ERROR_CHARACTERS = 500
"""Of an error's text that is kept for the status; the log has all of it."""


class Policy(enum.Enum):
    """What follows when a task fails."""

    RESTART = "restart"
    """It is started again after a pause; the node ends when it fails ``MAX_IN_A_ROW`` times in a row."""

    ONCE = "once"
    """It had one thing to do, and that is not tried again."""

    GO_ON = "go on"
    """It catches its failures itself, and only has them counted here."""


@dataclass
class Supervised:
    """What is known of the tasks of one name. Pure."""

    name: str
    owner: str
    policy: Policy
    running: int = 0
    waiting: bool = False
    failures: int = 0
    in_a_row: int = 0
    last_error: str = ""
    last_failed: float = 0.0

    @property
    def state(self) -> str:
        """``running``, ``restarting`` (it failed, and has not been started again yet) or ``ended``."""
        if self.waiting:
            return "restarting"
        return "running" if self.running else "ended"

    def failed(self, error: BaseException, now: float, ran: float = 0.0) -> float | None:
        """Count a failure at ``now`` (seconds since the epoch), ``ran`` seconds after a start.

        Returns the seconds until it is to be started again, or None when it is not.
        """
        self.failures += 1
        self.in_a_row = 1 if ran >= STEADY_SECONDS else self.in_a_row + 1
        self.last_error = describe(error)[:MAX_ERROR_CHARACTERS]
        self.last_failed = now
        if self.policy is not Policy.RESTART or self.in_a_row >= MAX_IN_A_ROW:
            return None
        return RESTARTS.after(self.in_a_row)

    def to_json(self) -> dict[str, Any]:
        """For the status; ``last_failure`` is None, or a time like ``2026-08-22T10:00:00Z``."""
        return {
            "name": self.name,
            "owner": self.owner,
            "policy": self.policy.value,
            "state": self.state,
            "failures": self.failures,
            "last_error": self.last_error,
            "last_failure": as_text(self.last_failed) if self.failures else None,
        }


class Supervisor:
    """The background tasks of one node. All methods run on the event loop's thread.

    ``fatal`` says why the node must end, once it must; ``on_fatal`` is then called with it, once.
    """

    def __init__(self, on_fatal: Callable[[NodeEnded], None] | None = None) -> None:
        self.fatal: NodeEnded | None = None
        self._on_fatal = on_fatal
        self._known: dict[str, Supervised] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(
        self, name: str, owner: str, work: Callable[[], Coroutine[Any, Any, object]], policy: Policy = Policy.RESTART
    ) -> None:
        """Run ``work()`` in the background until it returns, or ``close``. After that nothing is started any more.

        Names are few and fixed: several tasks of one name are counted together.
        """
        if self._closed:
            log.debug("the %s is not started: the node is ending", name)
            return
        record = self._record(name, owner, policy)
        record.running += 1
        task = asyncio.create_task(self._supervise(record, work), name=f"supervisor of {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)  # it cannot fail: ``_supervise`` catches whatever ``work`` raises

    def note(self, name: str, owner: str, error: BaseException) -> None:
        """Count and log a failure that somebody caught and goes on after; one that repeats, ever more rarely."""
        record = self._record(name, owner, Policy.GO_ON)
        record.running = 1
        known = record.last_error
        record.failed(error, time.time())
        if record.last_error != known or not record.failures & (record.failures - 1):
            if isinstance(error, MooncakeError) and error.exit_code != MooncakeError.exit_code:
                log.error("the %s failed (%d) and goes on: %s", name, record.failures, error)
            else:  # a defect of ours
                log.error("the %s failed (%d) and goes on", name, record.failures, exc_info=error)

    def hear_of_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count what fails on ``loop`` where nobody waits: a callback, or a task that its owner forgot.

        The loop would log it, and that is all.
        """
        loop.set_exception_handler(self._callback_failed)

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)  # a warning, of something that was not closed
        else:
            self.note("event loop", "node", error)

    def report(self) -> list[dict[str, Any]]:
        """Every task that runs or has failed; see ``Supervised.to_json``."""
        return [record.to_json() for record in self._known.values() if record.failures or record.running]

    async def close(self) -> None:
        """End every task and wait for its end; twice is harmless."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # cancellations; failures are recorded by then

    def _record(self, name: str, owner: str, policy: Policy) -> Supervised:
        return self._known.setdefault(name, Supervised(name, owner, policy))

    async def _supervise(self, record: Supervised, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                error = await _outcome(record.name, work)
                if error is None:
                    return
                pause = record.failed(error, time.time(), loop.time() - began)
                if pause is None:
                    self._give_up(record, error)
                    return
                times = f"{record.failures} times by now" if record.failures > 1 else "for the first time"
                log.error("the %s failed, %s; it starts again in %g s", record.name, times, pause, exc_info=error)
                record.waiting = True
                await asyncio.sleep(pause)
                record.waiting = False
        finally:
            record.waiting = False
            record.running -= 1

    def _give_up(self, record: Supervised, error: BaseException) -> None:
        if record.policy is Policy.ONCE:
            log.error("the %s failed; it is not tried again", record.name, exc_info=error)
            return
        fatal = NodeEnded(task=record.name, failures=record.in_a_row, detail=describe(error))
        log.critical("%s", fatal, exc_info=error)
        if self.fatal is None:
            self.fatal = fatal
            if self._on_fatal is not None:
                self._on_fatal(fatal)


async def _outcome(name: str, work: Callable[[], Coroutine[Any, Any, object]]) -> BaseException | None:
    """What ``work`` raised, or None.

    It runs in a task of its own: so a cancellation that comes from within (of a call that it waited for) counts as
    its failure, and is not taken for ours.
    """
    task = asyncio.create_task(work(), name=name)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Exception):
            log.warning("the %s failed while it was being ended", name, exc_info=outcome)
        raise
    return asyncio.CancelledError("cancelled from within") if task.cancelled() else task.exception()


def thread_report(failure: Failure) -> dict[str, Any]:
    """What failed in a thread of the engine, as ``Supervisor.report`` has it: it goes on, or another is started."""
    return {
        "name": failure.name,
        "owner": "engine",
        "policy": Policy.GO_ON.value,
        "state": "running",
        "failures": failure.count,
        "last_error": failure.error[:MAX_ERROR_CHARACTERS],
        "last_failure": as_text(failure.at),
    }


def describe(error: BaseException) -> str:
    """An error in one line: its sentence where it has one, else its type and text."""
    return str(error) if isinstance(error, MooncakeError) else f"{type(error).__name__}: {error}"


def as_text(moment: float) -> str:
    """Seconds since the epoch as people and ``jq`` read them: ``2026-08-22T10:00:00Z``."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
