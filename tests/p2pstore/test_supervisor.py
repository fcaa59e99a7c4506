"""A task that fails is started again, or ends the node; and in any case somebody hears of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from engine.net.backoff import Backoff
from p2pstore import supervisor as module
from p2pstore.errors import NodeEnded, StorageError
from p2pstore.supervisor import MAX_IN_A_ROW, RESTARTS, STEADY_SECONDS, Policy, Supervised, Supervisor

WAIT = 30.0
EPOCH = 1_787_392_800.0


class Flaky:
    """Fails so many times, and then runs until it is ended."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.left = failures
        self.error = error or RuntimeError("a bug")
        self.starts = 0
        self.steady = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self) -> None:
        self.starts += 1
        if self.left:
            self.left -= 1
            raise self.error
        self.steady.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


class Owner:
    """A supervisor, and what it said to its owner."""

    def __init__(self) -> None:
        self.heard: list[NodeEnded] = []
        self.over = asyncio.Event()
        self.supervisor = Supervisor(self.hear)

    def hear(self, fatal: NodeEnded) -> None:
        self.heard.append(fatal)
        self.over.set()


@pytest.fixture
async def owner(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owner]:
    monkeypatch.setattr(module, "RESTARTS", Backoff(0.001, 0.01))
    made = Owner()
    yield made
    await made.supervisor.close()


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():  # noqa: ASYNC110 - a record says nothing when it changes
            await asyncio.sleep(0.002)

    await asyncio.wait_for(poll(), WAIT)


def test_pauses_grow_and_end() -> None:
    record = Supervised("keeper", "node", Policy.RESTART)
    pauses = [record.failed(RuntimeError("x"), EPOCH) for _ in range(MAX_IN_A_ROW)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert max(pause for pause in pauses[:-1] if pause is not None) == RESTARTS.last
    assert pauses[-1] is None
    assert record.failures == MAX_IN_A_ROW


def test_who_ran_for_long_has_not_failed_in_a_row() -> None:
    record = Supervised("keeper", "node", Policy.RESTART)
    pauses = [record.failed(RuntimeError("x"), EPOCH, STEADY_SECONDS) for _ in range(3 * MAX_IN_A_ROW)]
    assert set(pauses) == {RESTARTS.first}
    assert record.failures == 3 * MAX_IN_A_ROW


@pytest.mark.parametrize("policy", [Policy.ONCE, Policy.GO_ON])
def test_other_policies_start_nothing_again(policy: Policy) -> None:
    assert Supervised("keeper", "node", policy).failed(RuntimeError("x"), EPOCH) is None


def test_a_record_says_what_failed_when_and_how_often() -> None:
    record = Supervised("keeper", "node", Policy.RESTART)
    assert record.to_json()["last_failure"] is None
    record.failed(RuntimeError("x"), EPOCH)
    record.failed(StorageError(path="/home", detail="no space"), EPOCH + 1)
    record.waiting = True
    assert record.to_json() == {
        "name": "keeper",
        "owner": "node",
        "policy": "restart",
        "state": "restarting",
        "failures": 2,
        "last_error": "/home: no space",
        "last_failure": "2026-08-22T10:00:01Z",
    }


async def test_a_task_that_fails_is_started_again(owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(3)
    owner.supervisor.start("keeper", "node", flaky.run)
    await asyncio.wait_for(flaky.steady.wait(), WAIT)
    (record,) = owner.supervisor.report()
    assert (record["failures"], record["state"], record["last_error"]) == (3, "running", "RuntimeError: a bug")
    assert owner.supervisor.fatal is None
    logged = [r for r in caplog.records if "the keeper failed" in r.getMessage()]
    assert len(logged) == 3
    assert all(r.levelno == logging.ERROR and r.exc_info for r in logged)


async def test_a_task_that_does_nothing_but_fail_ends_the_node(owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(10**9)
    owner.supervisor.start("keeper", "node", flaky.run)
    await asyncio.wait_for(owner.over.wait(), WAIT)
    assert flaky.starts == MAX_IN_A_ROW
    assert owner.heard == [owner.supervisor.fatal]
    assert "its keeper does not work" in str(owner.heard[0])
    assert "RuntimeError: a bug" in str(owner.heard[0])
    await until(lambda: owner.supervisor.report()[0]["state"] == "ended")
    assert any(r.levelno == logging.CRITICAL for r in caplog.records)


async def test_of_several_ends_the_owner_hears_the_first(owner: Owner) -> None:
    for name in ("one", "two"):
        owner.supervisor.start(name, "node", Flaky(10**9).run)
    await until(lambda: all(r["state"] == "ended" for r in owner.supervisor.report()))
    assert owner.heard == [owner.supervisor.fatal]


async def test_what_is_done_once_is_recorded_when_it_fails(owner: Owner) -> None:
    flaky = Flaky(1)
    owner.supervisor.start("withdrawal", "get", flaky.run, Policy.ONCE)
    await until(lambda: owner.supervisor.report()[0]["state"] == "ended")
    assert (flaky.starts, owner.supervisor.report()[0]["failures"], owner.heard) == (1, 1, [])


async def test_what_ended_well_is_not_reported(owner: Owner) -> None:
    async def work() -> None:
        pass

    owner.supervisor.start("withdrawal", "get", work, Policy.ONCE)
    await until(lambda: owner.supervisor.report() == [])


async def test_a_cancellation_from_within_is_a_failure(owner: Owner) -> None:
    """A call that it waits for was cancelled by somebody else: nobody has ended the task."""
    flaky = Flaky(1, asyncio.CancelledError())
    owner.supervisor.start("keeper", "node", flaky.run)
    await asyncio.wait_for(flaky.steady.wait(), WAIT)
    assert "cancelled" in owner.supervisor.report()[0]["last_error"]


async def test_close_ends_what_runs_and_what_waits(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    running, waiting = Flaky(0), Flaky(1)
    monkeypatch.setattr(module, "RESTARTS", Backoff(600.0, 600.0))
    owner.supervisor.start("running", "node", running.run)
    owner.supervisor.start("waiting", "node", waiting.run)
    await asyncio.wait_for(running.steady.wait(), WAIT)
    await until(lambda: [r["state"] for r in owner.supervisor.report()] == ["running", "restarting"])
    await asyncio.wait_for(owner.supervisor.close(), WAIT)
    await asyncio.wait_for(owner.supervisor.close(), WAIT)
    assert running.ended.is_set()
    assert waiting.starts == 1
    assert [r["state"] for r in owner.supervisor.report()] == ["ended"]
    owner.supervisor.start("late", "node", running.run)
    assert running.starts == 1


async def test_what_somebody_caught_is_counted(owner: Owner) -> None:
    owner.supervisor.note("callback", "event loop", ValueError("x"))
    owner.supervisor.note("callback", "event loop", ValueError("y"))
    (record,) = owner.supervisor.report()
    assert (record["policy"], record["failures"], record["state"]) == ("go on", 2, "running")
    assert record["last_error"] == "ValueError: y"


async def test_only_a_defect_of_ours_leaves_a_traceback(owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    owner.supervisor.note("journal", "master", StorageError(path="/state", detail="no space left on device"))
    owner.supervisor.note("call", "master", ValueError("x"))
    foreseen, defect = caplog.records
    assert foreseen.message == "the journal failed (1) and goes on: /state: no space left on device"
    assert foreseen.exc_info is None
    assert defect.exc_info is not None


async def test_a_callback_that_fails_is_counted(owner: Owner) -> None:
    def fail() -> None:
        raise ValueError("x")

    loop = asyncio.get_running_loop()
    owner.supervisor.hear_of_callbacks(loop)
    try:
        loop.call_soon(fail)
        await until(lambda: bool(owner.supervisor.report()))
    finally:
        loop.set_exception_handler(None)
    (record,) = owner.supervisor.report()
    assert (record["name"], record["failures"], record["last_error"]) == ("event loop", 1, "ValueError: x")
