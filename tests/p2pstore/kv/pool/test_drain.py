"""Emptying segments: what is moved, what stays, and how a job ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import Memory, TaskDone, TaskStatus
from p2pstore.kv.pool import drain as d
from p2pstore.kv.pool.drain import JobInfo, JobStatus
from tests.p2pstore.kv.pool.pools import MIB, House, ident


class Yard(House):
    """A house of three clients, of which the first holds all values, and a way to carry tasks out."""

    def __init__(self, count: int = 10, **settings: Any) -> None:
        super().__init__(lease_ms=1000, client_ttl=1e6, start_ttl=1e6, **settings)
        self.owner = self.join("a")
        self.keys = [f"k{number}" for number in range(count)]
        self.put(self.owner, self.keys)
        self.others = [self.join("b"), self.join("c")]

    def carry_out(self, *, well: bool = True) -> int:
        """Do what the owner is asked for; tells how many moves that was."""
        tasks = self.pool.fetch_tasks(self.owner, 1000)
        for task in tasks:
            said = json.loads(task.payload)
            if well:
                key, source, target, tenant = (said[name] for name in ("key", "source", "target", "tenant_id"))
                assert not isinstance(self.pool.move_start(self.owner, key, source, target, tenant), Code)
                assert self.pool.move_end(self.owner, key, tenant) is Code.OK
            status = TaskStatus.SUCCESS if well else TaskStatus.FAILED
            assert self.pool.task_done(self.owner, TaskDone(task.id, status, "")) is Code.OK
        return len(tasks)

    def turn(self) -> None:
        self.ticked()
        self.clock.now += d.AGAIN_S

    def through(self, job: bytes, *, well: bool = True) -> JobInfo:
        for _ in range(200):
            self.turn()
            self.carry_out(well=well)
            info = self.info(job)
            if info.status >= JobStatus.SUCCEEDED:
                return info
        raise AssertionError(f"it does not end: {self.info(job)}")

    def begin(self, segments: list[str], targets: list[str] | None = None, concurrency: int = 4) -> bytes:
        job = self.pool.drain(segments, targets or [], concurrency)
        assert isinstance(job, bytes)
        return job

    def info(self, job: bytes) -> JobInfo:
        found = self.pool.drain_job(job)
        assert isinstance(found, JobInfo)
        return found

    def where(self, key: str) -> set[str]:
        found = self.pool.peek(key)
        assert not isinstance(found, Code)
        return {each.place.endpoint for each in found.replicas if isinstance(each.place, Memory)}

    def status(self, name: str = "a") -> str:
        found = self.pool.segment(name)
        assert not isinstance(found, Code)
        return found.status


def test_all_values_are_moved_and_the_segment_takes_none() -> None:
    yard = Yard()
    job = yard.begin(["a"])
    assert yard.info(job).status is JobStatus.CREATED
    assert yard.status() == "DRAINING"
    info = yard.through(job)
    assert (info.status, info.message) == (JobStatus.SUCCEEDED, "Drain job finished successfully")
    assert (info.succeeded, info.failed, info.blocked, info.active, info.moved_bytes) == (10, 0, 0, 0, 10 * MIB)
    assert all(yard.where(key) <= {"b", "c"} for key in yard.keys)
    assert {where for key in yard.keys for where in yard.where(key)} == {"b", "c"}, "the emptiest is taken"
    assert yard.status() == "DRAINED"
    yard.put(yard.owner, [f"new {number}" for number in range(20)])
    assert yard.pool.segment("a").used == 0  # type: ignore[union-attr]


def test_so_many_are_moved_at_a_time() -> None:
    yard = Yard()
    job = yard.begin(["a"], concurrency=3)
    yard.turn()
    assert yard.info(job).active == 3
    assert yard.carry_out() == 3
    yard.turn()
    assert yard.info(job).active == 3
    assert yard.info(job).succeeded == 3


def test_values_go_where_they_are_to_go() -> None:
    yard = Yard()
    info = yard.through(yard.begin(["a"], ["c"]))
    assert info.status is JobStatus.SUCCEEDED
    assert {where for key in yard.keys for where in yard.where(key)} == {"c"}


def test_what_cannot_be_moved_now_is_blocked_and_looked_at_again() -> None:
    yard = Yard(3)
    yard.put(yard.owner, ["hard"], with_hard_pin=True, preferred_segment="a")
    yard.start(yard.owner, ["unfinished"], preferred_segment="a")
    yard.pool.exist(["k0"])
    job = yard.begin(["a"])
    for _ in range(2):
        yard.turn()
        yard.carry_out()
    info = yard.info(job)
    assert (info.status, info.succeeded) == (JobStatus.RUNNING, 2)
    for _ in range(4):
        yard.turn()
        yard.carry_out()
    info = yard.info(job)
    assert (info.status, info.succeeded, info.blocked) == (JobStatus.RUNNING, 3, 2), "the lease is over"
    yard.pool.put_revoke(yard.owner, ["unfinished"])
    yard.pool.remove(["hard"], force=True)
    assert yard.through(job).status is JobStatus.SUCCEEDED


def test_what_fails_too_often_ends_the_job_and_the_segment_is_as_before() -> None:
    yard = Yard(2)
    job = yard.begin(["a"])
    info = yard.through(job, well=False)
    assert (info.status, info.message) == (JobStatus.FAILED, "Drain job failed: unrecoverable units remain")
    assert info.failed == 2 * d.MAX_RETRIES
    assert yard.status() == "OK"
    assert yard.there(yard.keys) == yard.keys


def test_a_full_pool_blocks_and_nothing_is_lost() -> None:
    house = House(lease_ms=0, client_ttl=1e6, start_ttl=1e6)
    a = house.join("a", size=4 * MIB)
    house.put(a, ["1", "2"])
    job = house.pool.drain(["a"])
    assert isinstance(job, bytes)
    for _ in range(3):
        house.ticked()
        house.clock.now += d.AGAIN_S
    info = house.pool.drain_job(job)
    assert isinstance(info, JobInfo)
    assert (info.status, info.blocked) == (JobStatus.RUNNING, 2), "there is no other segment"
    assert house.there(["1", "2"]) == ["1", "2"]


def test_a_job_is_ended_while_none_of_its_moves_is_under_way() -> None:
    yard = Yard()
    job = yard.begin(["a"], concurrency=2)
    yard.turn()
    assert yard.pool.cancel_drain(job) is Code.BAD_STATUS
    yard.carry_out()
    yard.pool._drains._look_at_tasks(yard.pool._drains._jobs[job])
    assert yard.pool.cancel_drain(job) is Code.OK
    assert yard.info(job).status is JobStatus.CANCELED
    assert yard.status() == "OK"
    assert yard.pool.cancel_drain(job) is Code.BAD_STATUS
    assert not yard.pool._index.order.plain.walks, "it looks at no more values"
    assert yard.there(yard.keys) == yard.keys


def test_a_segment_that_goes_meanwhile_is_empty() -> None:
    yard = Yard()
    job = yard.begin(["a"])
    yard.pool.unmount(yard.owner, ident("seg-a"))
    assert yard.through(job).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("segments", "targets", "concurrency", "code"),
    [
        ([], [], 4, Code.BAD_PARAMS),
        (["a"], [], 0, Code.BAD_PARAMS),
        (["a"], [], d.MAX_CONCURRENCY + 1, Code.BAD_PARAMS),
        (["a", "a"], [], 4, Code.BAD_PARAMS),
        (["a"], ["a"], 4, Code.BAD_PARAMS),
        (["nobody"], [], 4, Code.NO_SEGMENT),
        (["a"], ["nobody"], 4, Code.NO_SEGMENT),
        (["going"], [], 4, Code.BAD_STATUS),
        (["a"], ["going"], 4, Code.BAD_STATUS),
    ],
)
def test_a_job_that_cannot_be_is_refused(segments: list[str], targets: list[str], concurrency: int, code: Code) -> None:
    yard = Yard(1)
    going = yard.join("going")
    yard.pool.unmount(going, ident("seg-going"), 60.0)
    assert yard.pool.drain(segments, targets, concurrency) is code
    assert yard.status() == "OK"


def test_two_jobs_do_not_drain_one_segment_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d, "MAX_JOBS", 1)
    yard = Yard(1)
    job = yard.begin(["a"])
    assert yard.pool.drain(["a"]) is Code.BAD_STATUS
    assert yard.pool.drain(["b"]) is Code.TOO_MANY_TASKS
    yard.through(job)
    assert isinstance(yard.pool.drain(["b"]), bytes)
    assert yard.pool.drain_job(job) is Code.NO_JOB
    assert yard.pool.cancel_drain(job) is Code.NO_JOB


def test_many_values_are_looked_at_a_step_at_a_time() -> None:
    yard = Yard(0)
    keys = [f"k{number}" for number in range(3000)]
    yard.put(yard.owner, keys, size=100, preferred_segment="a", with_hard_pin=True)
    job = yard.begin(["a"])
    steps = 0
    while yard.pool.tick():
        steps += 1
    assert steps >= 3000 // d.STEP_ENTRIES
    assert yard.info(job).blocked == 3000
    assert yard.pool.due() is not None
