"""Bytes come whole whatever some of the sources do; what goes wrong at one costs that one's chunks only."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import PeerUnreachable, StorageError, TransportUnavailable, UsageError
from engine.net.rate import RateLimit
from engine.transports.base import Channel, PeerAddress, Sink
from engine.transports.mock import MockTransport
from p2pstore.errors import ChunkMismatch, DestinationBusy
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull import owner
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.owner import Pull
from p2pstore.pull.workers import Source, Worker
from tests.p2pstore.samples import KIB, MIB, content, manifest_of, read_tree

ADDRESS = 1 << 20
CHUNK = 256 * KIB
FILES = {"a": content(3 * MIB, 1), "b/c d": content(2 * MIB + 7, 2), "empty": b"", "é": content(5, 3)}
WHOLE = b"".join(FILES[path] for path in sorted(FILES))
MANIFEST = manifest_of(FILES, CHUNK)
DEADLINE = 30.0


class Swarm:
    """A pull whose sources are mock transports, by node name; it records what the pull says."""

    def __init__(self, destination: Any, *, connections: int = 2) -> None:
        self.mocks: dict[tuple[str, str], MockTransport] = {}
        self.dropped: list[tuple[str, bool]] = []
        self.notes: list[str] = []
        self.wrong: list[tuple[str, int]] = []
        self.told: set[int] = set()
        self.asked: list[tuple[str, int, tuple[range, ...]]] = []
        self.early: list[range] = []
        self.had: Bitmap = destination.verified
        self.pull = Pull(
            destination,
            self.had,
            open_channel=self.open_channel,
            connections=connections,
            limit=RateLimit(),
            on_progress=lambda: None,
            on_chunks=self.on_chunks,
            on_ask=lambda node, count, done: self.asked.append((node, count, tuple(done))),
            on_drop=lambda node, banned: self.dropped.append((node, banned)),
            on_wrong=lambda node, chunk: self.wrong.append((node, chunk)),
            note=self.notes.append,
        )

    def open_channel(self, peer: PeerAddress, transport: str) -> Channel:
        return self.mocks[peer.segment, transport].open(peer)

    def on_chunks(self, run: range) -> None:
        self.told.update(run)
        if not self.had.has_all(run):
            self.early.append(run)

    def add(
        self,
        node: str,
        script: str | Sequence[str] = "",
        *,
        mock: MockTransport | None = None,
        have: Sequence[int] | None = None,
        transports: tuple[str, ...] = ("mock",),
        segment: str = "",
    ) -> MockTransport:
        made = mock or MockTransport({ADDRESS: WHOLE}, script, stall_seconds=0.05)
        segment = segment or node
        for name in transports:
            self.mocks.setdefault((segment, name), made)
        bits = Bitmap(MANIFEST.chunks, full=have is None)
        bits.update(have or ())
        self.pull.add(Source(node, PeerAddress(segment, "127.0.0.1", 1), ADDRESS, transports), bits, 2)
        return made

    def wait(self, until: Callable[[], bool] | None = None) -> None:
        deadline = time.monotonic() + DEADLINE
        while not (until() if until else self.pull.finished):
            assert time.monotonic() < deadline, "the pull came to no end"
            time.sleep(0.005)


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[FileDestination]:
    made = FileDestination(tmp_path / "dest", MANIFEST, "object")
    yield made
    made.abort()


@pytest.fixture
def swarm(destination: FileDestination) -> Iterator[Swarm]:
    made = Swarm(destination)
    yield made
    made.pull.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("pull-")]


def requested(*mocks: MockTransport) -> int:
    return sum(length for mock in mocks for _, _, length in mock.requests)


def assert_whole(swarm: Swarm, destination: FileDestination) -> None:
    assert swarm.pull.error is None
    assert swarm.pull.finished
    swarm.pull.close()
    destination.finish()
    assert read_tree(destination.path) == FILES
    assert swarm.told == set(range(MANIFEST.chunks))
    assert swarm.early == []


def test_one_source(swarm: Swarm, destination: FileDestination) -> None:
    mock = swarm.add("one")
    swarm.wait()
    assert requested(mock) == len(WHOLE) == swarm.pull.bytes_pulled
    assert swarm.pull.bytes_by_node == {"one": len(WHOLE)}
    assert swarm.pull.bytes_by_transport == {"mock": len(WHOLE)}
    assert_whole(swarm, destination)


def test_several_sources_each_with_a_part(swarm: Swarm, destination: FileDestination) -> None:
    third = MANIFEST.chunks // 3
    parts = [range(third), range(third, 2 * third), range(2 * third, MANIFEST.chunks)]
    mocks = [swarm.add(f"part {n}", have=part) for n, part in enumerate(parts)]
    swarm.wait()
    assert requested(*mocks) == len(WHOLE)
    assert_whole(swarm, destination)


def test_chunks_that_a_source_gets_meanwhile(swarm: Swarm, destination: FileDestination) -> None:
    swarm.add("grows", have=[0])
    swarm.wait(lambda: 0 in swarm.had and swarm.pull.stuck)
    swarm.pull.has("grows", range(1, MANIFEST.chunks))
    swarm.wait()
    assert_whole(swarm, destination)


def test_wrong_bytes_ban_their_sender_and_the_others_finish(swarm: Swarm, destination: FileDestination) -> None:
    evil = swarm.add("evil", "x" * 1000)
    swarm.wait(lambda: ("evil", True) in swarm.dropped)
    asked = len(evil.requests)
    good = swarm.add("good")
    swarm.add("evil", mock=evil)
    swarm.wait()
    assert isinstance(swarm.pull.last_fault, ChunkMismatch)
    assert swarm.pull.last_fault.fields["peer"] == "evil"
    assert {node for node, _ in swarm.wrong} == {"evil"}
    assert len(evil.requests) == asked
    kept = swarm.pull.bytes_by_node.get("evil", 0)
    assert requested(good) == len(WHOLE) - kept
    assert_whole(swarm, destination)


@pytest.mark.parametrize("script", ["s", "r", "d", "die:0", "die:300000", "g", "sd", "..d", ".s.d.g"])
def test_a_fault_costs_only_its_own_chunks(swarm: Swarm, destination: FileDestination, script: str) -> None:
    steps = [script] if script.startswith("die") else script
    swarm.add("bad", steps)
    swarm.add("good")
    swarm.wait()
    assert ("bad", True) not in swarm.dropped
    assert_whole(swarm, destination)


def test_a_source_alone_is_forgiven_its_faults(swarm: Swarm, destination: FileDestination) -> None:
    swarm.add("only", ".d.s")
    swarm.wait()
    assert_whole(swarm, destination)


def test_a_source_that_refuses_is_given_up(swarm: Swarm) -> None:
    swarm.add("refuses", "r" * 100)
    swarm.wait(lambda: swarm.dropped == [("refuses", False)] and swarm.pull.stuck)
    assert not swarm.pull.finished


def test_without_sources_it_is_stuck(swarm: Swarm) -> None:
    assert swarm.pull.stuck
    swarm.add("has nothing", have=[])
    swarm.pull.remove("has nothing")
    swarm.wait(lambda: swarm.pull.stuck and not swarm.pull._members)
    assert swarm.pull.active == 0


def test_kept_chunks_of_a_broken_run_are_not_fetched_again(tmp_path: Path) -> None:
    files = {"": content(MIB, 9)}
    manifest = manifest_of(files, 64 * KIB)
    destination = FileDestination(tmp_path / "dest", manifest, "object")
    swarm = Swarm(destination, connections=1)
    mock = MockTransport({ADDRESS: files[""]}, [f"die:{5 * 64 * KIB + 100}"])
    swarm.mocks["one", "mock"] = mock
    swarm.pull.add(
        Source("one", PeerAddress("one", "127.0.0.1", 1), ADDRESS, ("mock",)), Bitmap(manifest.chunks, full=True), 2
    )
    swarm.wait()
    swarm.pull.close()
    destination.finish()
    assert read_tree(destination.path) == files
    (_, broken, length), *rest = mock.requests
    kept = range(broken, broken + 5 * 64 * KIB)
    assert length > len(kept)
    assert not any(at in kept or broken in range(at, at + length) for _, at, length in rest)
    assert sum(length for _, _, length in rest) == MIB - len(kept)
    assert swarm.pull.bytes_pulled == MIB


def test_a_pull_goes_on_where_another_ended(tmp_path: Path) -> None:
    first = FileDestination(tmp_path / "dest", MANIFEST, "object")
    swarm = Swarm(first)
    half = range(0, MANIFEST.chunks, 2)
    swarm.add("half", have=half)
    swarm.wait(lambda: swarm.had.count == len(half) and swarm.pull.stuck)
    swarm.pull.close()
    first.abort()

    second = FileDestination(tmp_path / "dest", MANIFEST, "object")
    second.recheck(threading.Event())
    assert list(second.verified) == list(range(0, MANIFEST.chunks, 2))
    missing = sum(MANIFEST.chunk(c).length for c in second.verified.missing())
    swarm = Swarm(second)
    mock = swarm.add("whole")
    swarm.wait()
    swarm.pull.close()
    assert requested(mock) == missing
    second.finish()
    assert read_tree(second.path) == FILES


class SubmitFails(MockTransport):
    """Its channels bring one request each, then their ``submit`` fails, as a socket's does whose peer has left."""

    def open(self, peer: PeerAddress) -> Channel:
        channel = super().open(peer)
        submit, receive = channel.submit, channel.receive
        received = 0

        def failing(address: int, length: int, place: memoryview | None = None) -> None:
            if received:
                raise PeerUnreachable(peer=peer.segment, detail="broken pipe")
            submit(address, length)

        def counting(sink: Sink) -> None:
            nonlocal received
            receive(sink)
            received += 1

        channel.submit, channel.receive = failing, counting  # type: ignore[method-assign]
        return channel


def test_a_request_that_was_never_sent_is_not_taken_for_received(tmp_path: Path) -> None:
    # Chunks larger than the window: a lane has one under way, brings it, and only then sends the next.
    files = {"": content(6 * MIB, 4)}
    manifest = manifest_of(files, MIB)
    destination = FileDestination(tmp_path / "dest", manifest, "object")
    swarm = Swarm(destination, connections=1)
    swarm.mocks["breaks", "mock"] = SubmitFails({ADDRESS: files[""]})
    swarm.pull.add(Source("breaks", PeerAddress("breaks", "h", 1), ADDRESS, ("mock",)), Bitmap(6, full=True), 2)
    swarm.wait()
    swarm.pull.close()
    assert swarm.pull.bytes_pulled == 6 * MIB
    destination.finish()
    assert read_tree(destination.path) == files


class Unavailable(MockTransport):
    def open(self, peer: PeerAddress) -> Channel:
        raise TransportUnavailable(transport="first", detail="no device")


class Unreachable(MockTransport):
    def open(self, peer: PeerAddress) -> Channel:
        raise PeerUnreachable(peer=peer.segment, detail="no such socket")


@pytest.mark.parametrize("broken", [Unavailable(), Unreachable()], ids=["unavailable", "unreachable"])
def test_the_next_transport_is_taken(swarm: Swarm, destination: FileDestination, broken: MockTransport) -> None:
    swarm.mocks["node", "first"] = broken
    swarm.add("node", transports=("first", "mock"))
    swarm.wait()
    assert swarm.pull.bytes_by_transport == {"mock": len(WHOLE)}
    assert len(swarm.notes) == 1
    assert "mock" in swarm.notes[0]
    assert_whole(swarm, destination)


def test_a_fault_is_forgotten_when_its_source_does_better(swarm: Swarm, destination: FileDestination) -> None:
    """What went wrong with it long ago is not why the rest cannot be had, should it go away for good."""
    swarm.mocks["node", "mock"] = Unreachable()
    swarm.add("node", have=range(1))
    swarm.wait(lambda: swarm.dropped == [("node", False)])
    assert isinstance(swarm.pull.last_fault, PeerUnreachable)
    swarm.mocks.clear()
    swarm.add("node", have=range(MANIFEST.chunks - 1))
    swarm.wait(lambda: len(swarm.told) == MANIFEST.chunks - 1 and swarm.pull.stuck)
    assert swarm.pull.last_fault is None
    swarm.add("other")
    swarm.wait()
    assert_whole(swarm, destination)


def test_without_a_usable_transport_the_source_is_given_up(swarm: Swarm) -> None:
    swarm.mocks["node", "first"] = Unavailable()
    swarm.mocks["node", "second"] = Unavailable()
    swarm.add("node", transports=("first", "second"))
    swarm.wait(lambda: swarm.dropped == [("node", False)] and swarm.pull.stuck)
    assert isinstance(swarm.pull.last_fault, TransportUnavailable)


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


class FullDisk(FileDestination):
    """A destination whose disk is full after some chunks."""

    room = 4

    def keep(self, run: range) -> None:
        self.room -= len(run)
        if self.room < 0:
            raise StorageError(path=self.part, detail="no space left on device")
        super().keep(run)


def test_an_error_of_our_own_ends_the_pull(tmp_path: Path) -> None:
    destination = FullDisk(tmp_path / "dest", MANIFEST, "object")
    swarm = Swarm(destination)
    swarm.add("one")
    swarm.wait()
    assert isinstance(swarm.pull.error, StorageError)
    swarm.pull.close()
    destination.abort()
    again = FileDestination(tmp_path / "dest", MANIFEST, "object")
    again.recheck(threading.Event())
    assert list(again.verified) == sorted(set(again.journal.chunks or ()))
    again.abort()


def test_a_full_disk_while_a_broken_run_is_sorted_out(tmp_path: Path) -> None:
    destination = FullDisk(tmp_path / "dest", MANIFEST, "object")
    destination.room = 0
    swarm = Swarm(destination)
    swarm.add("dies", ["die:600000"] * 10)
    swarm.wait()
    assert isinstance(swarm.pull.error, StorageError)
    assert swarm.told == set()
    swarm.pull.close()
    destination.abort()


def test_into_memory() -> None:
    room = {path: bytearray(len(data)) for path, data in FILES.items()}
    destination = MemoryDestination(MANIFEST, room)
    swarm = Swarm(destination)
    swarm.add("bad", "x")
    swarm.add("good", ".d")
    swarm.wait()
    swarm.pull.close()
    assert room == FILES


class HangingDisk:
    """A destination whose writes hang, those of workers of some sources, until the test lets them go on."""

    def __init__(self, inner: FileDestination, *sources: str) -> None:
        self.inner = inner
        self.manifest = inner.manifest
        self.verified = inner.verified
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
    """D4: removing it waited for the write, on the event loop and with the planner's lock, and then ended the pull."""
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
    """D4: what is still being written from it is not asked of it again."""
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
    """D4: a pull that is over waits for nobody; its destination stays locked until the writers have left."""
    swarm, disk = hanging
    swarm.pull.stop()
    swarm.wait(lambda: not swarm.pull._members)
    assert not swarm.pull.quiet.done()
    assert not disk.inner.abort(0)
    with pytest.raises(DestinationBusy):
        FileDestination(disk.inner.path, MANIFEST, "object")
    disk.go_on.set()
    swarm.pull.quiet.result(DEADLINE)
    assert disk.inner.abort(DEADLINE)
    FileDestination(disk.inner.path, MANIFEST, "object").abort()


def test_quiet_cannot_be_cancelled(swarm: Swarm) -> None:
    """D14: who waits for it may be cancelled, and nobody is to take that for silence."""
    assert not swarm.pull.quiet.cancel()
    swarm.pull.stop()
    swarm.pull.quiet.result(DEADLINE)


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
def test_whoever_comes_and_goes_two_never_write_one_place(destination: FileDestination, seed: int) -> None:
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


# Nothing dies in silence


def test_an_error_in_the_pulls_thread_ends_the_pull(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(event: object) -> list[Any]:
        raise ValueError("unforeseen")

    monkeypatch.setattr(swarm.pull._planner, "handle", broken)
    swarm.add("one")
    swarm.wait()
    assert "unforeseen" in str(swarm.pull.error)
    swarm.pull.quiet.result(DEADLINE)


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


def test_a_pull_outlives_the_loop_that_it_told(swarm: Swarm) -> None:
    def gone() -> None:
        raise RuntimeError("Event loop is closed")

    swarm.pull._on_progress = gone
    swarm.add("one")
    swarm.wait()
    swarm.pull.stop()
    swarm.pull.quiet.result(DEADLINE)
