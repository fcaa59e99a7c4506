"""Queue pairs to one owner: pieces go out as there is room, each ends once, and failures are told from refusals."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import PeerUnreachable, TransportUnavailable
from engine.memory.buffers import MemoryBuffer
from engine.memory.region import Region
from engine.net import addresses
from engine.serving.segment_server import SegmentServer
from engine.transports.rdma.addresses import from_text
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.pinned import Pinned
from engine.transports.rdma.reader.link import DEPTH, MAX_ATTEMPTS, Done, Link, Piece
from engine.transports.rdma.reader.session import Session
from engine.transports.rdma.verbs.fake_verbs import NO_ANSWER, REMOTE_ACCESS, Fabric, FakeDevice
from engine.transports.rdma.verbs.interface import Access, WorkOpcode

PATIENT = 60.0
SIZE = 100
"""Bytes of a piece."""

DATA = os.urandom(SIZE * 200)

Made = Callable[..., "Reading"]


class Reading:
    """A link to an owner that serves ``DATA``, and memory of our own to read it into."""

    def __init__(self, nics: Nics, owner: SegmentServer, preferred: frozenset[str] = frozenset()) -> None:
        peer = owner.address_of_self()
        port = addresses.given(peer.segment)[1]
        session = Session(peer.host, port, peer.segment, connect_timeout=PATIENT, answer_timeout=PATIENT)
        self.link = Link(nics, from_text(peer.rdma), session, name="reader", preferred=preferred)
        self.address = owner.register(MemoryBuffer("m", DATA))
        self.into = bytearray(len(DATA))
        self.pinned = Pinned(Region.of(self.into), Access.LOCAL_WRITE)
        self.pinned.register(self.link.nics)
        _, (self.extent,) = self.link.session.grant(self.address, len(DATA))

    def piece(self, number: int, **other: Any) -> Piece:
        """The piece of this number, or one of which something is wrong."""
        at = number * SIZE
        right: dict[str, Any] = {
            "opcode": WorkOpcode.READ, "local": self.pinned.address + at, "lkeys": self.pinned.lkeys(), "length": SIZE,
            "remote": self.extent.remote + at, "rkeys": self.extent.rkeys, "tag": number,
        }  # fmt: skip
        return Piece(**{**right, **other})

    def pieces(self, count: int) -> list[Piece]:
        return [self.piece(number) for number in range(count)]

    def drain(self) -> list[Done]:
        """All that is under way, to its end."""
        done: list[Done] = []
        while self.link.busy:
            found = self.link.wait(PATIENT)
            assert found, "nothing ended"
            done += found
        return done

    def close(self) -> None:
        self.link.close()
        self.pinned.close()


@pytest.fixture
def made(open_nics: Callable[..., Nics], owner: SegmentServer) -> Iterator[Made]:
    opened: list[Reading] = []

    def make(*devices: str, by: SegmentServer = owner, **options: Any) -> Reading:
        opened.append(Reading(open_nics(*(devices or ("a0",))), by, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_more_pieces_than_fit_go_out_as_others_end(made: Made, fabric: Fabric) -> None:
    reading = made()
    fabric.held = True
    pieces = reading.pieces(200)
    reading.link.post(pieces)
    assert reading.link.busy == 200
    (rail,) = reading.link.rails
    posted = rail.under_way // SIZE
    assert posted == DEPTH * reading.link.queue_pairs
    assert rail.room == 0
    fabric.release()
    done = reading.drain()
    assert sorted(each.piece.tag for each in done) == list(range(200))
    assert {each.why for each in done} == {None}
    assert reading.into == DATA
    assert (rail.under_way, rail.room, rail.moved) == (0, posted, len(DATA))


def test_a_wait_is_over_when_its_time_is(made: Made, fabric: Fabric) -> None:
    reading = made()
    assert reading.link.wait(0) == []
    fabric.held = True
    reading.link.post(reading.pieces(1))
    assert reading.link.wait(0.05) == []
    assert reading.link.busy == 1
    fabric.release()
    assert len(reading.drain()) == 1


def test_a_wait_hears_what_ends_meanwhile(made: Made, fabric: Fabric) -> None:
    reading = made()
    fabric.held = True
    reading.link.post(reading.pieces(1))
    threading.Timer(0.05, fabric.release).start()
    assert [each.piece.tag for each in reading.link.wait(PATIENT)] == [0]


def test_a_refused_piece_ends_and_the_others_arrive(made: Made) -> None:
    """Its queue pair broke with it, which is no fault of the rail's: it is made anew at once, and no pause follows."""
    reading = made()
    wrong = reading.piece(0, rkeys={"b0": 1})
    reading.link.post([wrong, *reading.pieces(20)[1:]])
    done = reading.drain()
    (refused,) = [each for each in done if each.why is not None]
    assert refused.piece is wrong
    assert refused.why is not None
    assert refused.why.refused
    assert len(done) == 20
    assert reading.into[SIZE : 20 * SIZE] == DATA[SIZE : 20 * SIZE]
    (rail,) = reading.link.rails
    assert rail.alive
    assert rail.failures == 0


def test_a_piece_that_fell_with_its_queue_pair_is_posted_again(made: Made, fabric: Fabric) -> None:
    reading = made()
    fabric.statuses.extend([0, NO_ANSWER])
    pieces = reading.pieces(10)
    reading.link.post(pieces)
    assert {each.why for each in reading.drain()} == {None}
    assert reading.into[: 10 * SIZE] == DATA[: 10 * SIZE]
    assert sum(piece.attempts for piece in pieces) == 1


def test_a_piece_that_fails_again_and_again_is_given_up(made: Made, fabric: Fabric) -> None:
    reading = made()
    fabric.statuses.extend([NO_ANSWER] * MAX_ATTEMPTS)
    pieces = reading.pieces(1)
    with pytest.raises(TransportUnavailable, match=r"a0 to b0 of .*: RETRY_EXC_ERR, the peer's device does not"):  # noqa: PT012
        reading.link.post(pieces)
        reading.drain()
    assert pieces[0].attempts == MAX_ATTEMPTS


def test_the_rails_are_those_of_devices_that_reach_each_other(
    made: Made, open_nics: Callable[..., Nics], fabric: Fabric
) -> None:
    for name, address in (("a1", "10.1.0.11"), ("b1", "10.1.0.21"), ("b2", "10.1.0.22")):
        fabric.devices[name] = FakeDevice(name, address)
    with SegmentServer(rdma=open_nics("b0", "b1", "b2")) as server:
        reading = made("a0", "a1", by=server, preferred=frozenset({"b1"}))
        link = reading.link
        assert {nic.name for nic in link.nics} == {"a0", "a1"}
        assert {rail.name.split()[2] for rail in link.rails} == {"b0", "b1", "b2"}
        assert all((rail.tier == 0) == (" to b1 " in rail.name) for rail in link.rails)
        assert all(rail.alive for rail in link.rails)
        assert link.queue_pairs % len(link.rails) == 0
        link.post(reading.pieces(100))
        reading.drain()
        assert {theirs for _, theirs in fabric.moved} == {"b1"}  # a worse tier is for failures
        fabric.down.add("b1")
        link.post(reading.pieces(100))
        reading.drain()
        assert {theirs for _, theirs in fabric.moved} > {"b1"}
        reading.close()


def test_devices_on_other_networks_are_told_apart(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    session = Session("127.0.0.1", 1, "p", connect_timeout=1, answer_timeout=1)
    with pytest.raises(TransportUnavailable):
        Link(open_nics("a0"), [], session, name="reader", preferred=frozenset())
    assert not fabric.pairs
    assert not fabric.queues


def test_a_peer_that_is_gone_ends_the_wait(made: Made, fabric: Fabric, owner: SegmentServer) -> None:
    reading = made()
    fabric.held = True
    reading.link.post(reading.pieces(1))
    closer = threading.Timer(0.05, owner.close)
    closer.start()
    with pytest.raises(PeerUnreachable, match="its process has ended the session"):
        reading.link.wait(PATIENT)
    closer.join()


def test_our_own_close_ends_the_wait_and_is_told_as_ours(made: Made, fabric: Fabric) -> None:
    reading = made()
    fabric.held = True
    reading.link.post(reading.pieces(1))
    closer = threading.Timer(0.05, reading.link.close)
    closer.start()
    with pytest.raises(PeerUnreachable, match="the channel was closed"):
        reading.link.wait(PATIENT)
    closer.join()
    with pytest.raises(PeerUnreachable, match="the channel was closed"):
        reading.link.post(reading.pieces(1))


def test_nothing_touches_the_memory_after_the_close(made: Made, fabric: Fabric) -> None:
    reading = made()
    descriptors = len(os.listdir("/proc/self/fd"))
    fabric.held = True
    reading.link.post(reading.pieces(50))
    reading.link.close()
    fabric.release()
    assert not any(reading.into)
    assert reading.link.queue_pairs == 0
    assert reading.link.busy == 0
    reading.link.close()
    assert len(os.listdir("/proc/self/fd")) <= descriptors - 3  # its queue's, its own, and the session's


def test_a_refusal_is_the_status_that_the_fake_gives() -> None:
    """Else the tests above would show another case than they say."""
    assert (REMOTE_ACCESS, NO_ANSWER) == (10, 12)
