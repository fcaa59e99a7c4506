"""Bytes come whole whatever some of the sources do."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import PeerUnreachable
from engine.transports.base import Channel, PeerAddress, Sink
from engine.transports.mock import MockTransport
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.workers import Source, Worker
from p2pstore.swarm.events import Declined, Done
from p2pstore.swarm.granter import Grant
from tests.p2pstore.pull.swarm import (
    ADDRESS,
    DEADLINE,
    FILES,
    MANIFEST,
    WHOLE,
    Swarm,
    assert_whole,
    destination,
    requested,
    swarm,
)
from tests.p2pstore.samples import KIB, MIB, content, manifest_of, read_tree

__all__ = ["destination", "swarm"]


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


def test_without_sources_it_is_stuck(swarm: Swarm) -> None:
    assert swarm.pull.stuck
    swarm.add("has nothing", have=[])
    swarm.pull.remove("has nothing")
    swarm.wait(lambda: swarm.pull.stuck and not swarm.pull._crew.members)
    assert swarm.pull.active == 0


def test_its_end_waits_for_workers_of_a_source_that_was_added_just_before(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Worker.run

    def slow_to_end(self: Worker) -> None:
        real(self)
        time.sleep(0.3)

    monkeypatch.setattr(Worker, "run", slow_to_end)
    turn = swarm.pull._mail.turn
    assert turn.acquire(timeout=DEADLINE)  # the pull's thread sees the source only when it is being closed
    swarm.add("late")
    threading.Timer(0.2, turn.release).start()
    assert swarm.pull.close(DEADLINE)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("pull-")]


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


def test_into_memory() -> None:
    room = {path: bytearray(len(data)) for path, data in FILES.items()}
    destination = MemoryDestination(MANIFEST, room)
    swarm = Swarm(destination)
    swarm.add("bad", "x")
    swarm.add("good", ".d")
    swarm.wait()
    swarm.pull.close()
    assert room == FILES


def test_quiet_cannot_be_cancelled(swarm: Swarm) -> None:
    """Who waits for it may be cancelled, and nobody is to take that for silence."""
    assert not swarm.pull.quiet.cancel()
    swarm.pull.stop()
    swarm.pull.quiet.result(DEADLINE)


def test_an_error_in_the_pulls_thread_ends_the_pull(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(event: object) -> list[Any]:
        raise ValueError("unforeseen")

    monkeypatch.setattr(swarm.pull._planner, "handle", broken)
    swarm.add("one")
    swarm.wait()
    assert "unforeseen" in str(swarm.pull.error)
    swarm.pull.quiet.result(DEADLINE)


def test_a_pull_outlives_the_loop_that_it_told(swarm: Swarm) -> None:
    def gone() -> None:
        raise RuntimeError("Event loop is closed")

    swarm.pull._on_progress = gone
    swarm.add("one")
    swarm.wait()
    swarm.pull.stop()
    swarm.pull.quiet.result(DEADLINE)


def test_a_source_that_grants_is_asked_when_it_does_and_hears_of_the_end(
    swarm: Swarm, destination: FileDestination
) -> None:
    mock = swarm.add("grants", grants=True)
    swarm.add("too", mock=mock, have=[], grants=True)  # a getter, so that runs stay short
    swarm.pull.shared("grants", shared=True)
    swarm.wait(lambda: bool(mock.requests))  # of before it was shared
    number = 0
    while not swarm.pull.finished:
        number += 1
        swarm.pull.granted(Grant("grants", number, None, window=3, lead=0.25))
        swarm.wait(lambda: swarm.pull.finished or len(answered(swarm)) == number)  # noqa: B023 - it waits here
    assert_whole(swarm, destination)
    numbers = [word.number for word in answered(swarm)]
    assert len(set(numbers)) == len(numbers), "each grant is answered once"
    assert any(isinstance(word, Done) for word in answered(swarm))


def answered(swarm: Swarm) -> list[Done | Declined]:
    return [word for word in swarm.said.copy() if isinstance(word, (Done, Declined))]
