"""What all transports share: how bytes are handed to a sink, and what one that keeps nothing need not write."""

from __future__ import annotations

import dataclasses

import pytest

from engine.transports.base import Channel, CloningSink, PeerAddress, TakingSink, Transport, pour
from engine.transports.into_memory import IntoMemory
from engine.transports.limited import LimitedSink
from engine.transports.mock import MockTransport
from tests.engine.transports.sinks import Pieces, Unwilling


class Taking(Pieces):
    """A sink that uses bytes where they are."""

    def __init__(self) -> None:
        super().__init__(0)
        self.took: list[memoryview] = []

    def take(self, data: memoryview) -> None:
        self.took.append(data)


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_bytes_are_copied_into_the_buffers_of_a_plain_sink(size: int) -> None:
    sink = Pieces(size)
    pour(sink, memoryview(b"0123456789"))
    pour(sink, memoryview(b"ab"))
    pour(sink, memoryview(b""))
    assert sink.got == b"0123456789ab"


def test_a_taking_sink_is_given_them_as_they_lie() -> None:
    sink = Taking()
    data = memoryview(b"0123456789")
    pour(sink, data)
    assert len(sink.took) == 1
    assert sink.took[0] is data


@pytest.mark.parametrize("at", ["buffer", "filled"])
def test_what_a_sink_raises_passes_through(at: str) -> None:
    with pytest.raises(BlockingIOError):
        pour(Unwilling(at), memoryview(b"0123456789"))


def test_what_a_sink_can_do_is_told_by_its_methods() -> None:
    plain, taking = IntoMemory(memoryview(bytearray(1))), Taking()
    assert not isinstance(plain, (TakingSink, CloningSink))
    assert isinstance(taking, TakingSink)
    assert not isinstance(taking, CloningSink)


def test_an_address_needs_no_more_than_the_data_port() -> None:
    peer = PeerAddress("10.0.0.1:12345", "10.0.0.1", 7301)
    assert (peer.protocol_version, peer.host_id, peer.local_socket, peer.rdma) == (2, "", "", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        peer.host = "10.0.0.2"  # type: ignore[misc]
    assert len({peer, dataclasses.replace(peer), dataclasses.replace(peer, rdma="x")}) == 2


def test_a_transport_that_keeps_nothing_closes_and_stays_usable() -> None:
    transport: Transport = MockTransport({5: b"abc"})
    transport.close()
    transport.close()
    channel = transport.open(PeerAddress("s", "h", 1))
    assert not channel.in_place
    channel.close()


@pytest.mark.parametrize("kind", [Channel, Transport])
def test_what_is_not_written_cannot_be_made(kind: type[object]) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_a_limited_sink_passes_as_one_that_takes_and_clones() -> None:
    assert issubclass(LimitedSink, (TakingSink, CloningSink))
