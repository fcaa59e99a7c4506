"""What goes wrong at one source costs its own chunks only; what goes wrong here ends the pull."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.errors import PeerUnreachable, StorageError, TransportUnavailable
from engine.transports.base import Channel, PeerAddress
from engine.transports.mock import MockTransport
from p2pstore.errors import ChunkMismatch
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.pull.swarm import (
    MANIFEST,
    WHOLE,
    Swarm,
    assert_whole,
    destination,
    requested,
    swarm,
)

__all__ = ["destination", "swarm"]


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
