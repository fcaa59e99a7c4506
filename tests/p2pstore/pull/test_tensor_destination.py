"""Pieces of an object in memory: whole chunks are hashed, and what is wanted of them stays."""

from __future__ import annotations

import pytest

from p2pstore.errors import Interrupted
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.tensor_destination import TensorDestination
from p2pstore.tensors.plan import Piece
from tests.p2pstore.pull.destinations import receive
from tests.p2pstore.samples import content, manifest_of

DATA = content(100)
MANIFEST = manifest_of({"": DATA}, 32)
ONE = Piece(source=40, row=30, stride=30, rows=1, area=0, to=3)
ROWS = Piece(source=75, row=2, stride=7, rows=4, area=0, to=34)


def made(*pieces: Piece) -> tuple[TensorDestination, list[bytearray]]:
    areas = [bytearray(50)]
    return TensorDestination(MANIFEST, pieces, [memoryview(area) for area in areas]), areas


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("scratch", [1, 5, 1000])
def test_what_is_wanted_is_kept(step: int, scratch: int) -> None:
    destination, areas = made(ONE, ROWS)
    assert list(destination.verified) == [0]
    assert destination.left_out == 32
    assert receive(destination, range(1, 4), DATA[32:], step, scratch) == 3
    destination.keep(range(1, 4))
    rows = b"".join(DATA[at : at + 2] for at in (75, 82, 89, 96))
    assert areas[0] == bytes(3) + DATA[40:70] + bytes(1) + rows + bytes(8)


def test_wrong_bytes_outside_of_what_is_wanted() -> None:
    destination, _ = made(ONE)
    with pytest.raises(Mismatch) as wrong:
        receive(destination, range(1, 3), b"!" + DATA[33:96])
    assert wrong.value.chunk == 1


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_the_memory_is_let_go(end: str) -> None:
    destination, areas = made(ONE)
    sink = destination.sink(range(1, 2), memoryview(bytearray(5)))
    sink.buffer(32)
    sink.filled(5)
    sink.close()
    getattr(destination, end)()
    areas[0].clear()
    with pytest.raises(Interrupted):
        destination.sink(range(1, 2), memoryview(bytearray(5)))
