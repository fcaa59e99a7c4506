"""Sources and their workers come, hang and go; two never write one place, and nobody waits for a write that hangs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import StorageError, UsageError
from engine.transports.mock import MockTransport
from p2pstore.errors import DestinationBusy
from p2pstore.pull import owner
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.workers import Worker
from tests.p2pstore.pull.swarm import (
    ADDRESS,
    DEADLINE,
    MANIFEST,
    WHOLE,
    Swarm,
    assert_whole,
    destination,
    requested,
    swarm,
)

__all__ = ["destination", "swarm"]


def test_close_ends_threads_that_wait_for_a_stalled_peer(destination: FileDestination) -> None:
    swarm = Swarm(destination)
    mock = swarm.add("stalls", mock=MockTransport({ADDRESS: WHOLE}, "s" * 100, stall_seconds=600.0))
    swarm.wait(lambda: len(mock.requests) == 2)
    swarm.pull.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("pull-")]
    swarm.pull.close()


def test_a_source_that_leaves_in_mid_request(swarm: Swarm, destination: FileDestination) -> None:
    mock = swarm.add("leaves", mock=MockTransport({ADDRESS: WHOLE}, "s" * 100, stall_seconds=600.0))
    swarm.wait(lambda: len(mock.requests) == 2)
    swarm.pull.remove("leaves")
    swarm.wait(lambda: swarm.pull.stuck)
    swarm.add("stays")
    swarm.wait()
    assert_whole(swarm, destination)


def test_a_source_found_again_at_another_address(swarm: Swarm, destination: FileDestination) -> None:
    mock = swarm.add("moves", mock=MockTransport({ADDRESS: WHOLE}, "s" * 100, stall_seconds=600.0))
    swarm.wait(lambda: len(mock.requests) == 2)
    swarm.add("moves", segment="elsewhere")
    swarm.wait()
    assert swarm.pull.bytes_by_node == {"moves": len(WHOLE)}
    assert_whole(swarm, destination)


def test_a_lone_source_that_is_found_again_gets_as_many_workers_as_before(destination: FileDestination) -> None:
    """Those of before leave; they are no other source's."""
    swarm = Swarm(destination, connections=4, further=1)
    crew = swarm.pull._crew

    def workers(segment: str) -> int:
        member = crew.members.get("moves")
        return len(member.workers) if member is not None and member.source.peer.segment == segment else 0

    for segment in ("here", "elsewhere", "elsewhere still"):
        mock = MockTransport({ADDRESS: WHOLE}, "s" * 100, stall_seconds=600.0)
        swarm.add("moves", segment=segment, mock=mock)
        swarm.wait(lambda mock=mock: bool(mock.requests))  # type: ignore[misc]
        assert workers(segment) == 4
    swarm.pull.close()


class HangingDisk:
    """A destination whose writes hang, those of workers of some sources, until the test lets them go on."""

    def __init__(self, inner: FileDestination, *sources: str) -> None:
        self.inner = inner
        self.manifest = inner.manifest
        self.verified = inner.verified
        self.lands_in = inner.lands_in
        self.go_on = threading.Event()
        self.hanging: set[range] = set()
        self.written: list[range] = []
        self._sources = tuple(f"pull-{source}-" for source in sources)

    def sink(self, run: range, scratch: memoryview) -> Any:
        sink = self.inner.sink(run, scratch)
        filled = sink.filled

        def slowly(count: int) -> None:
            if threading.current_thread().name.startswith(self._sources):
                self.hanging.add(run)
                self.go_on.wait()
            filled(count)
            self.written.append(run)

        sink.filled = slowly
        return sink

    def place(self, run: range) -> None:
        return None

    def keep(self, run: range) -> None:
        self.inner.keep(run)

    def chunks(self) -> set[int]:
        """The chunks that hang."""
        return {chunk for run in self.hanging for chunk in run}


@pytest.fixture
def hanging(destination: FileDestination) -> Iterator[tuple[Swarm, HangingDisk]]:
    """A pull of which a worker of the source "first" hangs in a write."""
    disk = HangingDisk(destination, "first")
    swarm = Swarm(disk, connections=1)
    swarm.add("first")
    try:
        swarm.wait(lambda: bool(disk.hanging))
        yield swarm, disk
    finally:
        disk.go_on.set()
        swarm.pull.close()
        assert not [t.name for t in threading.enumerate() if t.name.startswith("pull-")]


Hanging = tuple[Swarm, HangingDisk]


def test_a_source_whose_write_hangs_is_removed_at_once_and_others_go_on(hanging: Hanging) -> None:
    """Removing it waited for the write, on the event loop and with the planner's lock, and then ended the pull."""
    swarm, disk = hanging
    swarm.pull.remove("first")  # it returns: nothing else lets the write go on
    second = swarm.add("second")
    swarm.wait(lambda: set(swarm.had.missing()) == disk.chunks())
    assert swarm.pull.error is None
    assert not swarm.pull.finished
    assert not swarm.pull.stuck
    hanging_bytes = sum(MANIFEST.chunk(chunk).length for chunk in disk.chunks())
    assert requested(second) == len(WHOLE) - hanging_bytes, "two never write one place"
    disk.go_on.set()
    swarm.wait()
    assert_whole(swarm, disk.inner)


def test_a_source_whose_write_hangs_may_come_back(hanging: Hanging) -> None:
    """What is still being written from it is not asked of it again."""
    swarm, disk = hanging
    disk._sources = ()
    swarm.add("first", segment="elsewhere")
    swarm.wait(lambda: set(swarm.had.missing()) == disk.chunks())
    disk.go_on.set()
    swarm.wait()
    assert swarm.pull.bytes_by_node == {"first": len(WHOLE)}
    assert_whole(swarm, disk.inner)


def test_what_arrives_whole_from_a_source_that_was_removed_counts(hanging: Hanging) -> None:
    swarm, disk = hanging
    swarm.pull.remove("first")
    swarm.wait(lambda: not swarm.pull.active)
    disk.go_on.set()
    run = next(iter(disk.hanging))
    swarm.wait(lambda: swarm.had.has_all(run) or swarm.pull.stuck)
    second = swarm.add("second")
    swarm.wait()
    assert sum(length for _, _, length in second.requests) == len(WHOLE) - swarm.pull.bytes_by_node.get("first", 0)
    assert_whole(swarm, disk.inner)


def test_stop_returns_while_a_write_hangs_and_quiet_comes_when_it_ends(hanging: Hanging) -> None:
    """A pull that is over waits for nobody; its destination stays locked until the writers have left."""
    swarm, disk = hanging
    swarm.pull.stop()
    swarm.wait(lambda: not swarm.pull._crew.members)
    assert not swarm.pull.quiet.done()
    assert not disk.inner.abort(0)
    with pytest.raises(DestinationBusy):
        FileDestination(disk.inner.path, MANIFEST, "object")
    disk.go_on.set()
    swarm.pull.quiet.result(DEADLINE)
    assert disk.inner.abort(DEADLINE)
    FileDestination(disk.inner.path, MANIFEST, "object").abort()


def test_a_write_that_never_ends_fails_a_pull_that_has_nothing_else_to_do(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm, disk = hanging
    monkeypatch.setattr(owner, "RELEASE_SECONDS", 0.0)
    swarm.add("second")
    swarm.pull.remove("first")
    swarm.wait()
    assert isinstance(swarm.pull.error, StorageError)
    assert set(swarm.had.missing()) == disk.chunks(), "it has done what it could"


def test_a_source_that_comes_and_goes_does_not_fill_the_process_with_hanging_threads(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm, _ = hanging
    monkeypatch.setattr(owner, "MAX_LEAVING", 0)
    swarm.pull.remove("first")
    swarm.add("second")
    swarm.wait()
    assert isinstance(swarm.pull.error, StorageError)


class Watched:
    """A destination that notes when two write one place, or what is verified already."""

    def __init__(self, inner: FileDestination) -> None:
        self.inner = inner
        self.manifest = inner.manifest
        self.verified = inner.verified
        self.lands_in = inner.lands_in
        self.wrong: list[str] = []
        self._writing: dict[int, str] = {}
        self._kept: set[int] = set()
        self._lock = threading.Lock()

    def sink(self, run: range, scratch: memoryview) -> Any:
        sink = self.inner.sink(run, scratch)
        filled, close = sink.filled, sink.close
        me = threading.current_thread().name

        def watched(count: int) -> None:
            chunk = run[sink.kept]
            with self._lock:
                other = self._writing.setdefault(chunk, me)
                if other != me or chunk in self._kept:
                    self.wrong.append(f"{me} writes chunk {chunk} of {other}")
            filled(count)

        def closing() -> None:
            with self._lock:
                for chunk in run:
                    if self._writing.get(chunk) == me:
                        del self._writing[chunk]
            close()

        sink.filled, sink.close = watched, closing
        return sink

    def place(self, run: range) -> None:
        return None

    def keep(self, run: range) -> None:
        with self._lock:
            self._kept.update(run)
        self.inner.keep(run)


@pytest.mark.parametrize("seed", range(8))
def test_whoever_comes_and_goes_two_never_write_one_place(
    destination: FileDestination, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(owner, "MAX_LEAVING", 1000)  # however slowly they leave
    rng = random.Random(seed)
    watched = Watched(destination)
    swarm = Swarm(watched)
    mocks = {f"node{n}": MockTransport({ADDRESS: WHOLE}, "." * 5 + "d", stall_seconds=0.01) for n in range(4)}
    try:
        for _ in range(200):
            name = rng.choice(list(mocks))
            if rng.random() < 0.5:
                swarm.pull.remove(name)
            else:
                swarm.add(name, mock=mocks[name], segment=f"{name}-{rng.randrange(3)}")
            if rng.random() < 0.3:
                time.sleep(0.001)
        swarm.add("stays")
        swarm.wait()
        assert watched.wrong == []
        assert_whole(swarm, destination)
    finally:
        swarm.pull.close()


def test_an_error_that_ends_a_worker_ends_the_pull(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr(Worker, "_report", broken)
    swarm.add("one", "r")
    swarm.wait()
    assert "unforeseen" in str(swarm.pull.error)


def test_a_worker_that_cannot_be_started_ends_the_pull(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    swarm.add("one")
    swarm.wait()
    assert isinstance(swarm.pull.error, UsageError)
