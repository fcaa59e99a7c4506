"""A worker notes what it may write before it writes, reports what became of it, and leaves when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import TransportUnavailable
from engine.memory.region import Region
from engine.net.rate import RateLimit
from engine.transports.base import Channel, PeerAddress
from engine.transports.mock import MockChannel, MockTransport
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.task_queue import Task
from p2pstore.pull.workers import Arrived, Broke, Left, Member, Report, Source, ToldToStop, Worker, WorkerContext
from tests.p2pstore.samples import KIB, content, manifest_of

DATA = content(256 * KIB, 1)
MANIFEST = manifest_of({"": DATA}, 64 * KIB)
ADDRESS = 1 << 20
PEER = PeerAddress("peer", "h", 1)
OPEN = MockTransport({ADDRESS: DATA}).open


class Bench:
    """One worker, whose thread is the test's, and what it reports."""

    def __init__(
        self,
        *,
        open_channel: Callable[[PeerAddress, str], Channel] | None = None,
        limit: RateLimit | None = None,
    ) -> None:
        self.room = bytearray(len(DATA))
        self.destination = MemoryDestination(MANIFEST, {"": self.room})
        self.reports: list[Report] = []
        self.member = Member(Source("node", PEER, ADDRESS, ("one", "two")))
        job = WorkerContext(
            self.destination, open_channel or (lambda peer, _: OPEN(peer)), limit or RateLimit(), self.take
        )
        self.worker = Worker(job, self.member)
        self.member.workers.append(self.worker)
        self.on_report: Callable[[Report], Any] = lambda _: None

    def take(self, report: Report) -> None:
        self.reports.append(report)
        self.on_report(report)

    def ask(self, *runs: range) -> None:
        for run in runs:
            self.member.tasks.put(Task(run))


def test_it_reports_what_arrived_and_that_it_left() -> None:
    bench = Bench()
    bench.ask(range(2), range(2, 4))
    bench.on_report = lambda _: bench.member.close() if len(bench.reports) == 2 else None
    bench.worker.run()
    first, second, left = bench.reports
    assert isinstance(first, Arrived)
    assert isinstance(second, Arrived)
    assert [first.run, second.run] == [range(2), range(2, 4)]
    assert first.length + second.length == len(DATA)
    assert bench.room == DATA
    assert bench.worker.writing == [range(2), range(2, 4)], "the owner has not heard of them yet"
    assert isinstance(left, Left)
    assert left.error is None


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels make use of places, as those with devices do."""
    monkeypatch.setattr(MockChannel, "in_place", True)


def test_a_run_that_no_worker_has_is_taken_out_of_the_queue() -> None:
    bench = Bench()
    bench.ask(range(2), range(2, 4))
    assert bench.member.cancel(range(2, 4))
    bench.on_report = lambda _: bench.member.close()
    bench.worker.run()
    arrived, left = bench.reports
    assert isinstance(arrived, Arrived)
    assert arrived.run == range(2)
    assert isinstance(left, Left)
    assert not bench.member.cancel(range(2)), "it is over"


@pytest.mark.usefixtures("devices")
def test_what_it_may_write_is_known_when_it_is_told_to_stop() -> None:
    bench = Bench()
    bench.worker._submit(range(1))
    assert bench.member.close() == [(bench.worker, [range(1)])], "the channel may write to memory from now on"


@pytest.mark.usefixtures("devices")
def test_told_to_stop_it_writes_nothing_more() -> None:
    bench = Bench()
    bench.ask(range(1))
    bench.member.close()
    bench.worker.run()
    assert [type(report) for report in bench.reports] == [Left]
    bench.worker._channel = OPEN(PEER)
    with pytest.raises(ToldToStop):
        bench.worker._submit(range(1))
    assert bench.destination.abort(0), "it has given back the memory that it was to write to"
    assert bench.room == bytes(len(DATA))


def test_a_channel_that_opens_after_all_is_closed() -> None:
    opened: list[Channel] = []

    def late(peer: PeerAddress, _: str) -> Channel:
        bench.member.close()
        opened.append(OPEN(peer))
        return opened[0]

    bench = Bench(open_channel=late)
    bench.ask(range(1))
    bench.worker.run()
    broke, left = bench.reports
    assert isinstance(broke, Broke)
    assert isinstance(broke.error, ToldToStop)
    assert isinstance(left, Left)
    assert opened[0]._closed.is_set()  # type: ignore[attr-defined]


def test_what_is_lost_with_a_channel_is_reported_and_it_goes_on() -> None:
    turns = iter([TransportUnavailable(transport="one", detail="no device")])

    def fails_once(peer: PeerAddress, _: str) -> Channel:
        for error in turns:
            raise error
        return OPEN(peer)

    bench = Bench(open_channel=fails_once)
    bench.ask(range(1), range(1, 2))
    bench.on_report = lambda report: bench.member.close() if isinstance(report, Arrived) else None
    bench.worker.run()
    broke, arrived, _ = bench.reports
    assert isinstance(broke, Broke)
    assert (broke.runs, broke.kept, broke.transport) == ((range(1),), 0, "two")
    assert isinstance(arrived, Arrived)
    assert arrived.run == range(1, 2)
    assert bench.worker.transport == "two"


def test_workers_fall_back_together() -> None:
    member = Member(Source("node", PEER, ADDRESS, ("one", "two", "three")))
    assert member.fall_back("one") == "two"
    assert member.fall_back("one") == "two", "another worker was there before"
    assert member.transport == "two"
    assert member.fall_back("two") == "three"
    assert member.fall_back("one") == "three"
    assert member.fall_back("three") is None


@pytest.mark.parametrize("in_place", [True, False])
def test_a_region_is_given_to_a_channel_that_makes_use_of_it(in_place: bool) -> None:
    places: list[Region | None] = []

    class Noting(MockTransport):
        def open(self, peer: PeerAddress) -> Channel:
            channel = super().open(peer)
            submit = channel.submit

            def noting(address: int, length: int, place: Region | None = None) -> None:
                places.append(place)
                submit(address, length, place)

            channel.submit = noting  # type: ignore[method-assign]
            channel.in_place = in_place  # type: ignore[misc]
            return channel

    bench = Bench(open_channel=lambda peer, _: Noting({ADDRESS: DATA}).open(peer))
    bench.ask(range(4))
    bench.on_report = lambda _: bench.member.close() if len(bench.reports) == 1 else None
    bench.worker.run()
    assert [place and place.length for place in places] == [len(DATA) if in_place else None]


@pytest.mark.parametrize("stop", ["cancel", "close"])
def test_what_is_not_wanted_waits_for_no_limit(stop: str) -> None:
    """D10: the whole debt is paid, which takes hours here, but not for a run that is cancelled or a source given up."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) < 10
        if stop == "cancel":
            bench.worker.cancel()
        else:
            bench.member.close()

    bench = Bench(limit=RateLimit(1, clock=lambda: sum(slept), sleep=sleep))
    bench.ask(range(1))
    bench.on_report = lambda _: bench.member.close()
    bench.worker.run()
    assert len(slept) == 1
    broke, left = bench.reports
    assert isinstance(broke, Broke)
    assert broke.cancelled == (stop == "cancel")
    assert isinstance(left, Left)
    assert left.error is None
