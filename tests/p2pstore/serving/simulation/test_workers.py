"""Simulated instances beside what is worked out by hand."""

from __future__ import annotations

import pytest

from p2pstore.bench.virtual_clock import VirtualClock
from p2pstore.serving.costs import DecodeCost, PrefillCost
from p2pstore.serving.simulation.trace import Request
from p2pstore.serving.simulation.workers import DecodeWorker, Job, PrefillWorker

COST = DecodeCost(1.0, 0.0, 1000)


class Log:
    def __init__(self, cost: DecodeCost = COST) -> None:
        self.clock = VirtualClock()
        self.joined: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.worker = DecodeWorker("d", self.clock, cost, self._joined, self._done)

    def _joined(self, job: Job) -> None:
        self.joined[job.number] = self.clock.now

    def _done(self, job: Job) -> None:
        self.ended[job.number] = self.clock.now

    def offer(self, at: float, number: int, length: int, output: int, first: float | None = None) -> Job:
        job = Job(number, Request(0, length, output, ()), 0.0, first=at if first is None else first)
        self.clock.at(at, self.worker.offer, job)
        return job

    def run(self) -> None:
        self.clock.run(float("inf"))


def test_one_prompt_after_the_other_with_what_is_kept() -> None:
    clock, done = VirtualClock(), list[tuple[int, float]]()

    def computed(worker: PrefillWorker, job: Job) -> None:
        worker.cache.use(job.request.blocks)
        done.append((job.number, clock.now))

    worker = PrefillWorker("p", clock, PrefillCost(1.0, 0.1, 0.0), 10, 5, computed)
    for number in range(2):
        worker.give(Job(number, Request(0, 25, 1, (1, 2)), 0.0))
    clock.run(float("inf"))
    assert done == [(0, 3.5), (1, pytest.approx(3.5 + 1.5))]
    assert worker.busy == pytest.approx(5.0)


def test_what_a_queued_prompt_will_reuse_is_not_what_goes_next() -> None:
    clock = VirtualClock()
    worker = PrefillWorker("p", clock, PrefillCost(1.0, 0.0, 0.0), 10, 2, lambda *_: None)
    worker.cache.use([1])
    worker.cache.use([2])
    worker.give(Job(0, Request(0, 25, 1, (1, 9)), 0.0, ready=False))
    assert worker.cache.use([3])[1] == [2]


def test_what_is_fetched_is_waited_for_by_those_behind_it_too() -> None:
    clock, done = VirtualClock(), list[int]()
    worker = PrefillWorker("p", clock, PrefillCost(1.0, 0.0, 0.0), 10, 5, lambda _, job: done.append(job.number))
    first = Job(0, Request(0, 25, 1, ()), 0.0, ready=False)
    worker.give(first)
    worker.give(Job(1, Request(0, 25, 1, ()), 0.0))
    clock.run(5.0)
    assert done == []
    first.ready = True
    worker.look()
    clock.run(float("inf"))
    assert done == [0, 1]


def test_a_request_takes_a_step_for_each_token_after_the_first() -> None:
    log = Log()
    job = log.offer(0.0, 0, 10, 21)
    alone = log.offer(0.0, 1, 10, 1)
    log.run()
    assert log.ended == {0: pytest.approx(20.0), 1: 0.0}
    assert (job.tbt, alone.tbt) == (pytest.approx(1.0), 0.0)


def test_steps_get_longer_with_the_batch() -> None:
    log = Log(DecodeCost(1.0, 0.01, 10_000))
    job = log.offer(0.0, 0, 0, 21)
    log.offer(10.0, 1, 100, 1000)
    log.run()
    assert log.ended[0] == pytest.approx(10 + 10 * 2.1, rel=0.02)
    assert job.tbt == pytest.approx(2.1, rel=0.02)


def test_without_room_it_waits_and_that_is_a_gap() -> None:
    log = Log()
    log.offer(0.0, 0, 900, 11)
    job = log.offer(0.0, 1, 100, 11)
    log.run()
    assert log.joined == {0: 0.0, 1: pytest.approx(10.0)}
    assert job.tbt == pytest.approx(11.0)


def test_a_request_larger_than_the_room_is_served_alone() -> None:
    log = Log()
    log.offer(0.0, 0, 5000, 3)
    log.run()
    assert log.ended == {0: pytest.approx(2.0)}


def test_the_longest_tenth_of_the_gaps_counts() -> None:
    log = Log()
    job = log.offer(7.0, 0, 10, 21, first=2.0)
    log.run()
    assert job.tbt == pytest.approx((5.0 + 1.0 + 1.0) / 2)
