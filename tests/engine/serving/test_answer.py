"""An answer in steps: none moves more than the limit's piece, and the memory is given back whatever happens."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from engine.errors import RemoteProtocolError
from engine.memory.address_space import AddressSpace
from engine.memory.buffers import MemoryBuffer
from engine.net.rate import BURST_SECONDS, RateLimit
from engine.protocol import wire
from engine.serving.answer import Answer

DATA = random.Random(3).randbytes(300_000)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end, which does not block, and the peer's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(30)
    with ours, theirs:
        yield ours, theirs


def made(request: wire.Request, space: AddressSpace, limit: RateLimit | None = None) -> Answer:
    lease = space.resolve(request.address, request.length)
    return Answer(request, lease, peer="p", limit=limit or RateLimit(), closing=lambda: False)


def request_of(address: int, length: int, opcode: wire.Opcode, version: int = 2) -> wire.Request:
    return wire.unpack_request(wire.pack_request(address, length, opcode=opcode, version=version), peer="p")


def nothing_ahead(_: int) -> bytes:
    return b""


@pytest.mark.parametrize("version", [1, 2])
def test_a_read_waits_for_its_peer_and_goes_on_where_it_was(
    pair: tuple[socket.socket, socket.socket], version: int
) -> None:
    ours, theirs = pair
    space = AddressSpace()
    address = space.register(MemoryBuffer("m", DATA * 20))
    answer = made(request_of(address + 5, len(DATA) * 19, wire.Opcode.READ, version), space)
    got = bytearray()
    waited = 0
    while not answer.finished:
        assert answer.sends
        try:
            answer.go_on(ours, nothing_ahead)
        except BlockingIOError:
            waited += 1
            got += theirs.recv(1 << 20)
    answer.close()
    ours.shutdown(socket.SHUT_WR)
    while piece := theirs.recv(1 << 20):
        got += piece
    assert waited
    status = wire.pack_status(wire.Status.OK) if version == 2 else b""
    assert got == status + (DATA * 20)[5 : 5 + len(DATA) * 19]
    assert space.unregister(address, timeout=0), "nothing holds the memory"


def test_a_read_keeps_to_the_limit(pair: tuple[socket.socket, socket.socket]) -> None:
    slept: list[float] = []
    limit = RateLimit(1_000_000, clock=lambda: 1000.0 + sum(slept), sleep=slept.append)
    ours, theirs = pair
    space = AddressSpace()
    answer = made(request_of(space.register(MemoryBuffer("m", DATA)), len(DATA), wire.Opcode.READ), space, limit)
    got = b""
    while not answer.finished:
        answer.go_on(ours, nothing_ahead)
        piece = theirs.recv(1 << 20)
        assert len(piece) <= 1_000_000 * BURST_SECONDS + 8
        got += piece
    answer.close()
    assert got[8:] == DATA
    assert 0.3 - BURST_SECONDS <= sum(slept) <= 0.301


def test_a_write_takes_what_was_read_already_first(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    space, memory = AddressSpace(), bytearray(100)
    address = space.register(MemoryBuffer("m", memory, writable=True))
    answer = made(request_of(address + 10, 50, wire.Opcode.WRITE), space)
    ahead = [DATA[:20]]
    assert not answer.sends
    answer.go_on(ours, lambda most: ahead.pop()[:most] if ahead else b"")
    with pytest.raises(BlockingIOError):
        answer.go_on(ours, nothing_ahead)
    theirs.sendall(DATA[20:50])
    answer.go_on(ours, nothing_ahead)
    assert answer.sends
    assert not answer.finished
    answer.go_on(ours, nothing_ahead)
    assert answer.finished
    answer.close()
    assert theirs.recv(100) == wire.pack_status(wire.Status.OK)
    assert memory == bytes(10) + DATA[:50] + bytes(40)


def test_a_peer_that_leaves_in_the_middle_of_a_write_is_named(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    space = AddressSpace()
    address = space.register(MemoryBuffer("m", bytearray(100), writable=True))
    answer = made(request_of(address, 50, wire.Opcode.WRITE), space)
    theirs.sendall(b"x")
    answer.go_on(ours, nothing_ahead)
    theirs.close()
    with pytest.raises(RemoteProtocolError, match="in the middle of a write"):
        answer.go_on(ours, nothing_ahead)
    answer.close()
    assert space.unregister(address, timeout=0)
