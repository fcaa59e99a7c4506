"""Bytes between this program's memory and others': in place, over lanes, and what lies together in one request."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine import TransferRequest
from engine.errors import Closed, RangeRefused
from engine.memory.joined_buffer import JoinedBuffer
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.verbs.fake_verbs import Fabric
from p2pstore.kv.client import plane as module
from p2pstore.kv.client.plane import SEGMENT_START, DataPlane, Piece
from tests.engine.transports.rdma.conftest import fabric, open_nics
from tests.ports import closed_port

__all__ = ["fabric", "open_nics"]

LENGTH = 1 << 20


def make(**options: bool) -> DataPlane:
    return DataPlane("127.0.0.1", "P2PHANDSHAKE", protocol="tcp", devices="", **options)  # type: ignore[arg-type]


class Owner:
    """A plane with memory, and what lies in it."""

    def __init__(self) -> None:
        self.plane = make()
        self.address = self.plane.offer(LENGTH).address
        memory = self.plane.in_place(self.plane.endpoint, self.address, LENGTH)
        assert memory is not None
        self.memory = memory
        self.memory[:] = random.Random(1).randbytes(LENGTH)


@pytest.fixture(scope="module")
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.plane.close()


@pytest.fixture(scope="module")
def far() -> Iterator[DataPlane]:
    """A plane to which others are far."""
    made = make(neighbours=False)
    yield made
    made.close()


def pieces_of(owner: Owner, ranges: list[tuple[int, int]]) -> list[Piece]:
    endpoint = owner.plane.endpoint
    return [Piece(endpoint, owner.address + at, memoryview(bytearray(length))) for at, length in ranges]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), min_size=1, max_size=12), st.randoms())
def test_whatever_lies_together_each_piece_has_its_bytes(
    owner: Owner, far: DataPlane, steps: list[tuple[int, int]], chance: random.Random
) -> None:
    ranges, at = [], 0
    for gap, length in steps:
        at += gap * chance.randint(0, 1)
        ranges.append((at, length))
        at += length
    chance.shuffle(ranges)
    pieces = pieces_of(owner, ranges)
    assert far.read(pieces) == [None] * len(pieces)
    for (at, length), piece in zip(ranges, pieces, strict=True):
        assert piece.view == owner.memory[at : at + length]
    for number, piece in enumerate(pieces):
        piece.view[:] = bytes([number + 1]) * len(piece.view)
    assert far.write(pieces) == [None] * len(pieces)
    for number, (at, length) in enumerate(ranges):
        assert owner.memory[at : at + length] == bytes([number + 1]) * length


def test_pieces_that_lie_together_are_one_request(
    owner: Owner, far: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TransferRequest] = []
    carry_out = far.engine.carry_out

    def note(requests: list[TransferRequest]) -> object:
        asked.extend(requests)
        return carry_out(requests)

    monkeypatch.setattr(far.engine, "carry_out", note)
    assert far.read(pieces_of(owner, [(200, 100), (0, 100), (100, 100), (301, 10)])) == [None] * 4
    found = [(each.address - owner.address, isinstance(each.local, JoinedBuffer)) for each in asked]
    assert found == [(0, True), (301, False)]
    asked.clear()
    monkeypatch.setattr(module, "RUN_BYTES", 250)
    assert far.read(pieces_of(owner, [(0, 100), (100, 100), (200, 100)])) == [None] * 3
    assert [each.address - owner.address for each in asked] == [0, 200]


def test_over_rdma_each_piece_is_a_request_and_comes_over_the_device(
    open_nics: Callable[..., Nics], fabric: Fabric
) -> None:
    ours, theirs = (
        DataPlane("127.0.0.1", "P2PHANDSHAKE", protocol="rdma", devices="", neighbours=False, nics=open_nics(name))
        for name in ("a0", "b0")
    )
    memory = theirs.offer(LENGTH)
    assert memory.address % 4096 == SEGMENT_START, "what programs have begins elsewhere in its pages"
    there = theirs.in_place(theirs.endpoint, memory.address, LENGTH)
    assert there is not None
    there[:] = random.Random(2).randbytes(LENGTH)
    pieces = [Piece(theirs.endpoint, memory.address + at, memoryview(bytearray(5000))) for at in (0, 5000, 20_000)]
    assert ours.read(pieces) == [None] * 3
    assert [each.view == there[at : at + 5000] for each, at in zip(pieces, (0, 5000, 20_000), strict=True)] == [
        True
    ] * 3
    for each in pieces:
        each.view[:] = each.view[::-1]
    assert ours.write(pieces) == [None] * 3
    assert there[20_000:25_000] == pieces[2].view
    assert fabric.moved == {("a0", "b0"): 30_000}
    ours.close()
    theirs.close()


def test_each_piece_is_told_what_was_wrong_with_it(owner: Owner, far: DataPlane) -> None:
    good, outside = pieces_of(owner, [(0, 10), (LENGTH - 5, 10)])
    nowhere = Piece(f"127.0.0.1:{closed_port()}", 4096, memoryview(bytearray(10)))
    found = far.read([good, outside, nowhere, *pieces_of(owner, [(20, 5)])])
    assert found[0] is found[3] is None
    assert isinstance(found[1], RangeRefused)
    assert nowhere.endpoint in str(found[2])
    assert owner.plane.read([outside])[0] is not None, "of our own memory, too"
    assert not far.read_one(*nowhere)
    assert far.read_one(*good)


def test_a_plane_says_that_it_is_closed() -> None:
    plane = make()
    plane.close()
    for count in (1, 2):
        pieces = [Piece("127.0.0.1:1", 4096 + number, memoryview(bytearray(5))) for number in range(count)]
        with pytest.raises(Closed):
            plane.read(pieces)


def test_memory_that_was_withdrawn_is_not_served(far: DataPlane) -> None:
    owner = make()
    memory = owner.offer(LENGTH)
    piece = Piece(owner.endpoint, memory.address, memoryview(bytearray(5)))
    assert far.read([piece]) == [None]
    assert owner.withdraw(memory, timeout=10)
    assert not owner.offers
    assert far.read([piece])[0] is not None
    assert owner.read([piece])[0] is not None
    owner.close()
