"""What every transport does: the same cases over TCP in both versions, descriptors, RDMA on fake devices, and the mock.

What is a transport's own has a test file of its own. A case is left out only where a transport cannot have it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import transports
from engine.errors import MooncakeError, PeerStalled, PeerUnreachable, RangeRefused, UsageError
from engine.memory.region import Region
from engine.transports.base import Channel, PeerAddress
from engine.transports.into_memory import IntoMemory
from tests.engine.transports.backends import BACKENDS, STALL, Backend, Mock, Rdma, TcpVersion1
from tests.engine.transports.sinks import Pieces, Unwilling

MIB = 1 << 20
DATA = random.Random(5).randbytes(3 * MIB)
LARGE = 64 * MIB
"""Bytes: more than sockets or rings hold, so that a peer that ends has not sent them all."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = BACKENDS[request.param](tmp_path)
    yield made
    made.close()


def read(channel: Channel, address: int, length: int, size: int = 1 << 16) -> bytes:
    """A range, through a sink with a buffer of ``size`` bytes."""
    sink = Pieces(size)
    channel.submit(address, length)
    channel.receive(sink)
    return bytes(sink.got)


def is_closed(channel: Channel) -> bool:
    with pytest.raises(PeerUnreachable):
        channel.submit(1, 1)
    return True


def test_every_transport_of_ours_is_held_to_this() -> None:
    assert {name.partition("-")[0] for name in BACKENDS} == set(transports.transport_names())


@pytest.mark.parametrize("length", [1, 2, 4097, MIB, 3 * MIB])
def test_a_range_arrives(backend: Backend, length: int) -> None:
    address = backend.serve(DATA)
    assert read(backend.open(), address, length) == DATA[:length]
    assert read(backend.open(), address + len(DATA) - length, length) == DATA[-length:]


def test_a_range_larger_than_all_buffers_arrives(backend: Backend) -> None:
    data = DATA * 8 + b"end"
    assert read(backend.open(), backend.serve(data), len(data)) == data


@pytest.mark.parametrize("size", [1, 7, 4096, MIB, 4 * MIB])
def test_pipelined_ranges_arrive_in_order(backend: Backend, size: int) -> None:
    """``size`` is that of the sink's buffer."""
    rng = random.Random(size)
    address = backend.serve(DATA)
    channel = backend.open()
    lengths = [rng.randint(1, min(len(DATA), size * 1000)) for _ in range(20)]
    ranges = [(rng.randrange(len(DATA) - length + 1), length) for length in lengths]
    for at, length in ranges:
        channel.submit(address + at, length)
    for at, length in ranges:
        sink = Pieces(size)
        channel.receive(sink)
        assert sink.got == DATA[at : at + length]


def test_ranges_are_submitted_while_others_arrive(backend: Backend) -> None:
    address = backend.serve(DATA)
    channel = backend.open()
    channel.submit(address, MIB)
    for number in range(30):
        channel.submit(address + number + 1, MIB)
        sink = Pieces(MIB)
        channel.receive(sink)
        assert sink.got == DATA[number : number + MIB]


def test_memory_that_was_told_is_filled_and_given_back(backend: Backend) -> None:
    """``place`` is the channel's until the range was received, whether it makes use of it or not."""
    address = backend.serve(DATA)
    channel = backend.open()
    into = bytearray(len(DATA))
    channel.submit(address, len(DATA), Region.of(into))
    channel.receive(IntoMemory(memoryview(into)))
    assert into == DATA
    into.append(1)  # it may move again


def test_memory_that_was_told_is_given_back_with_the_channel(backend: Backend) -> None:
    address = backend.serve(DATA)
    channel = backend.open()
    into = bytearray(len(DATA))
    channel.submit(address, len(DATA), Region.of(into))
    channel.close()
    into.append(1)
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.submit(address, len(into), Region.of(into))
    into.append(1)


def test_channels_do_not_disturb_each_other(backend: Backend) -> None:
    address = backend.serve(DATA)
    transport = backend.transport()
    first, second, third = (backend.kept(transport.open(backend.peer())) for _ in range(3))
    for channel in (first, second, third):
        channel.submit(address, MIB)
    second.close()
    for channel in (third, first):
        sink = Pieces()
        channel.receive(sink)
        assert sink.got == DATA[:MIB]


@pytest.mark.parametrize("length", [5, MIB])
def test_a_range_that_is_not_served_is_refused(backend: Backend, length: int) -> None:
    address = backend.serve(DATA)
    for at in (address - 1, address + len(DATA) - length + 1, 1):
        channel = backend.open()
        with pytest.raises(RangeRefused):
            read(channel, at, length)
        assert is_closed(channel)
    assert read(backend.open(), address, length) == DATA[:length]


def test_what_came_before_a_refusal_arrives(backend: Backend) -> None:
    if backend.refuses_at == "submit":
        pytest.skip("it asks for the range when it is submitted: that raises, and what was submitted before is lost")
    address = backend.serve(DATA)
    channel = backend.open()
    for at in (address, address, 1):
        channel.submit(at, len(DATA))
    if not isinstance(backend, TcpVersion1):  # that refuses by closing, which over an unread request is a reset
        channel.submit(address, len(DATA))
    for _ in range(2):
        sink = Pieces(1 << 16)
        channel.receive(sink)
        assert sink.got == DATA
    with pytest.raises(RangeRefused):
        channel.receive(Pieces())
    assert is_closed(channel)


def test_withdrawn_memory_is_refused(backend: Backend) -> None:
    address, other = backend.serve(DATA), backend.serve(DATA[::-1])
    channel = backend.open()
    assert read(channel, address, MIB) == DATA[:MIB]
    backend.withdraw(address)
    with pytest.raises(RangeRefused):
        read(channel, address, MIB)
    assert is_closed(channel)
    assert read(backend.open(), other, MIB) == DATA[::-1][:MIB]


def test_a_peer_that_ends_in_mid_body_is_unreachable(backend: Backend) -> None:
    class Killing(Pieces):
        def filled(self, count: int) -> None:
            super().filled(count)
            kill()

    data = bytes(LARGE - 3) + b"end"
    channel, address, kill = backend.mortal(data)
    sink = Killing(1 << 16)
    channel.submit(address, len(data))
    with pytest.raises(PeerUnreachable):
        channel.receive(sink)
    assert 0 < len(sink.got) < len(data)
    assert not any(sink.got)
    assert is_closed(channel)


def test_a_peer_that_says_nothing_has_stalled(backend: Backend) -> None:
    channel, address = backend.silent(STALL)
    channel.submit(address, 5)
    with pytest.raises(PeerStalled):
        channel.receive(Pieces())
    assert is_closed(channel)


@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_close_from_another_thread_ends_a_wait(backend: Backend, pause: float) -> None:
    """Whether that thread waits already or is about to."""
    channel, address = backend.silent(60.0)
    channel.submit(address, 5)
    closer = threading.Timer(pause, channel.close)
    closer.start()
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.receive(Pieces())
    closer.join()
    channel.close()
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.submit(address, 5)


def test_close_from_another_thread_ends_a_transfer(backend: Backend) -> None:
    """The closing thread does not wait for the sink, and the bytes end within what is there already."""

    class Closing(Pieces):
        def filled(self, count: int) -> None:
            super().filled(count)
            if len(self.got) == count:
                closer = threading.Thread(target=channel.close)
                closer.start()
                closer.join(60)
                assert not closer.is_alive()

    address = backend.serve(bytes(LARGE))
    channel = backend.open()
    channel.submit(address, LARGE)
    sink = Closing(1 << 16)
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.receive(sink)
    assert 0 < len(sink.got) < LARGE
    assert read(backend.open(), address, 5) == bytes(5)


@pytest.mark.parametrize("at", ["buffer", "filled"])
def test_an_error_of_the_sink_passes_through_and_closes(backend: Backend, at: str) -> None:
    address = backend.serve(DATA)
    channel = backend.open()
    channel.submit(address, MIB)
    channel.submit(address, MIB)
    with pytest.raises(BlockingIOError, match="no space"):
        channel.receive(Unwilling(at))
    assert is_closed(channel)
    assert read(backend.open(), address, MIB) == DATA[:MIB]


def test_a_channel_is_closed_with_requests_under_way(backend: Backend) -> None:
    address = backend.serve(DATA)
    for _ in range(5):
        channel = backend.open()
        for _ in range(3):
            channel.submit(address, len(DATA))
        channel.close()
        channel.close()
        assert is_closed(channel)
    assert read(backend.open(), address, 5) == DATA[:5]


def test_misuse_is_told_and_costs_nothing(backend: Backend) -> None:
    address = backend.serve(DATA)
    channel = backend.open()
    with pytest.raises(UsageError):
        channel.receive(Pieces())
    with pytest.raises(UsageError):
        channel.submit(address, 0)
    assert read(channel, address, 5) == DATA[:5]


def test_more_requests_than_fit_are_misuse(backend: Backend) -> None:
    if not backend.max_in_flight:
        assert isinstance(backend, Mock)
        pytest.skip("its requests are a list in memory, which fills no pipe")
    address = backend.serve(DATA)
    channel = backend.open()
    into = bytearray(1)
    for at in range(backend.max_in_flight):
        channel.submit(address + at, 1)
    with pytest.raises(UsageError):
        channel.submit(address, 1, Region.of(into))
    into.append(1)  # it was given back
    sink = Pieces()
    for _ in range(backend.max_in_flight):
        channel.receive(sink)
    assert sink.got == DATA[: backend.max_in_flight]
    channel.submit(address, 1)
    channel.receive(sink)


def test_nobody_there(backend: Backend) -> None:
    transport = backend.transport()
    assert transport.usable(backend.nobody()) == ""
    with pytest.raises(PeerUnreachable):
        transport.open(backend.nobody())
    backend.kept(transport.open(backend.peer()))


def test_a_peer_that_does_not_offer_it_is_not_usable(backend: Backend) -> None:
    if isinstance(backend, Mock):
        pytest.skip("it can read from any peer")
    transport = backend.transport()
    assert transport.usable(backend.peer()) == ""
    bare = PeerAddress("127.0.0.1:1", "127.0.0.1", 0)
    assert transport.usable(bare)
    with pytest.raises(MooncakeError):
        transport.open(bare)


def test_nothing_is_left_open(backend: Backend) -> None:
    address = backend.serve(DATA)
    transport = backend.transport()

    def turn() -> None:
        channel = transport.open(backend.peer())
        assert read(channel, address, MIB) == DATA[:MIB]
        channel.close()

    turn()
    before = descriptors()
    for _ in range(10):
        turn()
    transport.close()
    deadline = time.monotonic() + 60
    while descriptors() > before or (isinstance(backend, Rdma) and backend.fabric.pairs):
        assert time.monotonic() < deadline  # until the peer has noticed, too
        time.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
