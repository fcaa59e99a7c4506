"""Gets in the background: begun, waited for, cancelled, cut short, remembered and forgotten."""

from __future__ import annotations

import asyncio
import errno
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import p2pstore.agent.jobs
from p2pstore.agent.job import CANCELLED, CUT, DONE, FAILED, RUNNING
from p2pstore.agent.jobs import KEPT_SECONDS, MAX_KEPT, Jobs, Limits
from p2pstore.errors import (
    DestinationBusy,
    DestinationExists,
    GetTimedOut,
    JobCancelled,
    JobCut,
    JobNotFound,
    MooncakeError,
    NoLivePeer,
    ObjectNotFound,
    StorageError,
    TooManyJobs,
)
from p2pstore.pull.get import GetRequest
from p2pstore.pull.pipeline import ASKING
from p2pstore.pull.run import Emit

WAIT = 60.0
HOME = Path("/home")
RESULT = {"dest": "/d", "size": 3}


class Gets:
    """Gets that do what a test tells them to; those without a word wait to be cancelled."""

    def __init__(self) -> None:
        self.does: list[Callable[[Emit], Awaitable[dict[str, Any]]]] = []
        self.begun = asyncio.Event()
        self.ended = 0

    async def __call__(self, request: GetRequest, emit: Emit) -> dict[str, Any]:
        self.begun.set()
        try:
            if self.does:
                return await self.does.pop(0)(emit)
            emit({"event": "progress", "done": 1, "total": 3, "peers": 1})
            await asyncio.sleep(3600)
        finally:
            self.ended += 1
        raise AssertionError


def ending(outcome: dict[str, Any] | Exception) -> Callable[[Emit], Awaitable[dict[str, Any]]]:
    async def do(emit: Emit) -> dict[str, Any]:
        emit({"event": "note", "text": "here"})
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return do


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gets() -> Gets:
    return Gets()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def jobs(tmp_path: Path, gets: Gets, clock: Clock) -> AsyncIterator[Jobs]:
    made = Jobs(tmp_path / "jobs.json", HOME, gets, clock=clock)
    await made.restore()
    yield made
    await made.close()


def wanted(dest: str = "/d") -> GetRequest:
    return GetRequest("n", Path(dest))


async def over(jobs: Jobs, number: int) -> dict[str, Any]:
    return await asyncio.wait_for(jobs.wait(number, lambda _: None), WAIT)


async def test_one_of_which_there_is_nothing_is_none(jobs: Jobs, gets: Gets, tmp_path: Path) -> None:
    gets.does.append(ending(ObjectNotFound(name="n")))
    job = await jobs.begin(wanted(), {}, Limits())
    with pytest.raises(ObjectNotFound, match="'n'"):
        await jobs.taken_up(job)
    assert jobs.all() == []
    assert json.loads((tmp_path / "jobs.json").read_bytes()) == {"next": 2, "jobs": []}
    with pytest.raises(JobNotFound):
        jobs.find(job.id)


async def test_one_that_has_found_it_is_told_of(
    jobs: Jobs, gets: Gets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes of it then is the job's own affair; and one whose question takes long is told of anyway."""
    fails = asyncio.Event()

    async def asks(emit: Emit) -> dict[str, Any]:
        emit({"event": "progress", "done": 0, "total": 0, "peers": 0, "step": ASKING, "unit": ""})
        await fails.wait()
        raise ObjectNotFound(name="n")

    job = await jobs.begin(wanted(), {}, Limits())
    await asyncio.wait_for(jobs.taken_up(job), WAIT)
    assert job.running
    gets.does.append(asks)
    slow = await jobs.begin(wanted("/e"), {}, Limits())
    monkeypatch.setattr(p2pstore.agent.jobs, "TAKEN_UP_SECONDS", 0.05)
    await asyncio.wait_for(jobs.taken_up(slow), WAIT)
    assert slow.running
    fails.set()
    with pytest.raises(ObjectNotFound):
        await over(jobs, slow.id)
    assert [each.id for each in jobs.all()] == [job.id, slow.id]


async def test_one_that_brings_it(jobs: Jobs, gets: Gets) -> None:
    gets.does.append(ending(RESULT))
    job = await jobs.begin(wanted(), {"seed": True}, Limits())
    assert (job.id, job.state) == (1, RUNNING)
    assert await over(jobs, 1) == RESULT
    assert (job.state, job.notes, job.result, job.error) == (DONE, ["here"], RESULT, None)
    assert await over(jobs, 1) == RESULT  # as often as anybody asks


async def test_one_that_fails_keeps_its_error(jobs: Jobs, gets: Gets) -> None:
    gets.does.append(ending(DestinationExists(path="/d")))
    job = await jobs.begin(wanted(), {}, Limits())
    with pytest.raises(DestinationExists, match="/d exists"):
        await over(jobs, job.id)
    assert job.state == FAILED
    assert job.document()["exit_code"] == 7


async def test_a_defect_is_an_error_too(jobs: Jobs, gets: Gets, caplog: pytest.LogCaptureFixture) -> None:
    gets.does.append(ending(ZeroDivisionError("oh")))
    job = await jobs.begin(wanted(), {}, Limits())
    with pytest.raises(MooncakeError, match="ZeroDivisionError"):
        await over(jobs, job.id)
    assert "Traceback" in caplog.text


async def test_who_waits_hears_and_does_not_end_it(jobs: Jobs, gets: Gets) -> None:
    job = await jobs.begin(wanted(), {}, Limits())
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    waiting = asyncio.create_task(jobs.wait(job.id, heard.put_nowait))
    while (await asyncio.wait_for(heard.get(), WAIT)).get("total") != 3:
        pass
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert job.state == RUNNING
    assert gets.ended == 0


async def test_cancelled(jobs: Jobs, gets: Gets) -> None:
    job = await jobs.begin(wanted(), {}, Limits())
    await asyncio.wait_for(gets.begun.wait(), WAIT)
    waiting = asyncio.create_task(over(jobs, job.id))
    await asyncio.sleep(0)
    assert (await jobs.cancel(job.id)).state == CANCELLED
    assert gets.ended == 1
    with pytest.raises(JobCancelled, match="job 1 was cancelled"):
        await waiting
    assert (await jobs.cancel(job.id)).state == CANCELLED  # twice is harmless


async def test_cancelled_before_it_has_begun(jobs: Jobs) -> None:
    job = await jobs.begin(wanted(), {}, Limits())
    assert (await jobs.cancel(job.id)).state == CANCELLED


async def test_one_destination_has_one_job(jobs: Jobs) -> None:
    first = await jobs.begin(wanted(), {}, Limits())
    with pytest.raises(DestinationBusy):
        await jobs.begin(wanted(), {}, Limits())
    other = await jobs.begin(wanted("/e"), {}, Limits())
    assert [job.id for job in jobs.running] == [first.id, other.id]
    await jobs.cancel(first.id)
    assert (await jobs.begin(wanted(), {}, Limits())).id == 3


async def test_it_tries_again_with_patience(jobs: Jobs, gets: Gets, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = NoLivePeer(name="n", detail="nobody")
    gets.does += [ending(ObjectNotFound(name="n")), ending(nobody), ending(RESULT)]
    job = await jobs.begin(wanted(), {}, Limits(wait=math.inf))
    assert await over(jobs, job.id) == RESULT
    assert "no object is named 'n'; trying again" in job.notes
    gets.does += [ending(nobody), ending(nobody), ending(RESULT)]
    job = await jobs.begin(wanted(), {}, Limits(retries=1))
    with pytest.raises(NoLivePeer):
        await over(jobs, job.id)


async def test_its_time_is_over(jobs: Jobs) -> None:
    job = await jobs.begin(wanted(), {}, Limits(timeout=0.05))
    with pytest.raises(GetTimedOut, match="not all of 'n' came within"):
        await over(jobs, job.id)
    assert job.state == FAILED


async def test_the_agents_end_cuts_it_short(tmp_path: Path, jobs: Jobs, gets: Gets, clock: Clock) -> None:
    gets.does.append(ending(RESULT))
    await over(jobs, (await jobs.begin(wanted(), {"seed": True}, Limits())).id)
    running = await jobs.begin(wanted(), {}, Limits())
    waiting = asyncio.create_task(over(jobs, running.id))
    await asyncio.wait_for(gets.begun.wait(), WAIT)
    await jobs.close()
    with pytest.raises(JobCut):
        await waiting
    following = Jobs(tmp_path / "jobs.json", HOME, gets, clock=clock)
    await following.restore()
    assert [(job.id, job.state) for job in following.all()] == [(1, DONE), (2, CUT)]
    assert following.find(1).asked == {"seed": True}
    assert await over(following, 1) == RESULT
    assert (await following.begin(wanted(), {}, Limits())).id == 3
    await following.close()


async def test_a_kill_cuts_it_short(tmp_path: Path, jobs: Jobs, gets: Gets) -> None:
    await jobs.begin(wanted(), {}, Limits())  # and nothing is written any more
    following = Jobs(tmp_path / "jobs.json", HOME, gets)
    await following.restore()
    with pytest.raises(JobCut, match="job 1 was cut short, since the agent in /home ended"):
        await over(following, 1)


async def test_what_is_forgotten(jobs: Jobs, gets: Gets, clock: Clock) -> None:
    for number in range(MAX_KEPT + 2):
        gets.does.append(ending(RESULT))
        clock.now += 1
        await over(jobs, (await jobs.begin(wanted(str(number)), {}, Limits())).id)
    assert [job.id for job in jobs.all()] == list(range(3, MAX_KEPT + 3))
    with pytest.raises(JobNotFound, match="there is no job 1"):
        jobs.find(1)
    running = await jobs.begin(wanted(), {}, Limits())
    clock.now += KEPT_SECONDS + 1
    assert jobs.all() == [running]


async def test_there_may_be_so_many(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2pstore.agent.jobs, "MAX_RUNNING", 2)
    for dest in "ab":
        await jobs.begin(wanted(dest), {}, Limits())
    with pytest.raises(TooManyJobs, match="2 jobs that have not ended"):
        await jobs.begin(wanted("c"), {}, Limits())


async def test_a_disk_that_is_full(jobs: Jobs, gets: Gets, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    gets.does.append(ending(RESULT))
    job = await jobs.begin(wanted(), {}, Limits())
    with monkeypatch.context() as broken:
        broken.setattr(p2pstore.agent.jobs, "replace_file", full)
        assert await over(jobs, job.id) == RESULT  # it is known while the agent lives
        with pytest.raises(StorageError, match="no space left"):
            await jobs.begin(wanted(), {}, Limits())
    assert [each.id for each in jobs.all()] == [job.id]


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"next": 1, "jobs": [7]}', b"\0" * 100])
async def test_a_file_that_is_damaged(
    tmp_path: Path, gets: Gets, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "jobs.json").write_bytes(data)
    made = Jobs(tmp_path / "jobs.json", HOME, gets)
    await made.restore()
    assert made.all() == []
    assert "is damaged" in caplog.text
    gets.does.append(ending(RESULT))
    await over(made, (await made.begin(wanted(), {}, Limits())).id)
    assert json.loads((tmp_path / "jobs.json").read_bytes())["next"] == 2
