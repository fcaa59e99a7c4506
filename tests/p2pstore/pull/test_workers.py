"""Bytes come whole whatever some of the sources do; what goes wrong at one costs that one's chunks only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import PeerUnreachable, StorageError, TransportUnavailable
from engine.net.rate import RateLimit
from engine.transports.base import Channel, PeerAddress, Sink
from engine.transports.mock import MockTransport
from p2pstore.errors import ChunkMismatch
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.workers import Pull, Source
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
            self.pull.tick()
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
    swarm.wait(lambda: swarm.pull.stuck)
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
    swarm.wait(lambda: swarm.dropped == [("refuses", False)])
    assert swarm.pull.stuck
    assert not swarm.pull.finished


def test_without_sources_it_is_stuck(swarm: Swarm) -> None:
    assert swarm.pull.stuck
    swarm.add("has nothing", have=[])
    assert swarm.pull.stuck
    swarm.pull.remove("has nothing")
    assert swarm.pull.stuck
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
    swarm.add("half", have=range(0, MANIFEST.chunks, 2))
    swarm.wait(lambda: swarm.pull.stuck)
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


def test_without_a_usable_transport_the_source_is_given_up(swarm: Swarm) -> None:
    swarm.mocks["node", "first"] = Unavailable()
    swarm.mocks["node", "second"] = Unavailable()
    swarm.add("node", transports=("first", "second"))
    swarm.wait(lambda: swarm.dropped == [("node", False)])
    assert isinstance(swarm.pull.last_fault, TransportUnavailable)
    assert swarm.pull.stuck


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
    assert swarm.pull.stuck
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


class SlowDisk:
    """A destination whose writes can be held up, to see who writes when."""

    def __init__(self, inner: FileDestination) -> None:
        self.inner = inner
        self.manifest = inner.manifest
        self.verified = inner.verified
        self.hold = threading.Event()
        self.writing = threading.Event()
        self.ended: list[str] = []

    def sink(self, run: range, scratch: memoryview) -> Any:
        sink = self.inner.sink(run, scratch)
        filled = sink.filled

        def slowly(count: int) -> None:
            if not self.hold.is_set():
                self.writing.set()
                self.hold.wait(DEADLINE)
            filled(count)
            self.ended.append(threading.current_thread().name)

        sink.filled = slowly
        return sink

    def place(self, run: range) -> None:
        return None

    def keep(self, run: range) -> None:
        self.inner.keep(run)


def test_a_source_that_is_given_up_writes_no_more(destination: FileDestination) -> None:
    """Its chunks are asked of others only when its last write has ended: what they verify must stay as it is."""
    disk = SlowDisk(destination)
    swarm = Swarm(disk)
    try:
        swarm.add("first")
        assert disk.writing.wait(DEADLINE)
        gone = threading.Thread(target=swarm.pull.remove, args=("first",))
        gone.start()
        gone.join(0.2)
        assert gone.is_alive(), "it waits for the write"
        disk.hold.set()
        gone.join(DEADLINE)
        written = len(disk.ended)
        time.sleep(0.1)
        assert len(disk.ended) == written, "nothing is written after it returned"
        swarm.add("second")
        swarm.wait()
        assert_whole(swarm, destination)
    finally:
        disk.hold.set()
        swarm.pull.close()
