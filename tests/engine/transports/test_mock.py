"""The mock's faults are the faults of real channels."""

from __future__ import annotations

import threading

import pytest

from engine.errors import (
    PeerStalled,
    PeerUnreachable,
    RangeRefused,
    RemoteError,
    RemoteProtocolError,
    UsageError,
)
from engine.memory.address_space import AddressSpace
from engine.memory.buffers import MemoryBuffer
from engine.transports.base import PeerAddress
from engine.transports.into_memory import IntoMemory
from engine.transports.mock import MockTransport

PEER = PeerAddress("s", "h", 1)


def read(transport: MockTransport, address: int, length: int) -> tuple[bytes, type[RemoteError] | None]:
    channel = transport.open(PEER)
    out = bytearray(length)
    sink = IntoMemory(memoryview(out))
    channel.submit(address, length)
    try:
        channel.receive(sink)
    except RemoteError as error:
        with pytest.raises(PeerUnreachable):
            channel.submit(address, length)
        return bytes(out[: sink.done]), type(error)
    return bytes(out), None


def test_the_script_is_followed() -> None:
    transport = MockTransport({100: b"abcdef"}, ".xsrdg")
    assert [read(transport, 101, 4) for _ in range(7)] == [
        (b"bcde", None),
        (b"bcdd", None),
        (b"", PeerStalled),
        (b"", RangeRefused),
        (b"bc", PeerUnreachable),
        (b"", RemoteProtocolError),
        (b"bcde", None),
    ]
    assert transport.requests == [("s", 101, 4)] * 7


def test_words_and_an_address_space() -> None:
    space = AddressSpace()
    address = space.register(MemoryBuffer("m", b"abcdef"))
    transport = MockTransport(space, ["ok", "die:3", "die:0"])
    assert read(transport, address, 6) == (b"abcdef", None)
    assert read(transport, address, 6) == (b"abc", PeerUnreachable)
    assert read(transport, address, 6) == (b"", PeerUnreachable)
    assert read(transport, address, 7) == (b"", RangeRefused)


def test_unreachable_and_closed() -> None:
    with pytest.raises(PeerUnreachable):
        MockTransport(unreachable=["s"]).open(PEER)
    channel = MockTransport({1: b"a"}, "s", stall_seconds=60).open(PEER)
    channel.submit(1, 1)
    threading.Timer(0.1, channel.close).start()
    with pytest.raises(PeerUnreachable, match="closed"):
        channel.receive(IntoMemory(memoryview(bytearray(1))))


@pytest.mark.parametrize("script", ["q", ["die:x"], ["ok:3"], ["nonsense"]])
def test_a_script_that_is_not_understood(script: str | list[str]) -> None:
    with pytest.raises(UsageError):
        MockTransport(script=script)
