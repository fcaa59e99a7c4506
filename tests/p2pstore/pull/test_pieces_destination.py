"""What gets of pieces have in common, shown with the one into memory of the host."""

from __future__ import annotations

import pytest

from p2pstore.errors import SourceChanged
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.pieces_destination import take, whole_chunks
from p2pstore.pull.tensor_destination import TensorDestination
from p2pstore.tensors.plan import Piece
from tests.p2pstore.pull.destinations import receive
from tests.p2pstore.samples import content, manifest_of

DATA = content(100)
MANIFEST = manifest_of({"": DATA}, 32)
ONE = Piece(source=40, row=30, stride=30, rows=1, area=0, to=3)


def made() -> tuple[TensorDestination, bytearray]:
    area = bytearray(50)
    return TensorDestination(MANIFEST, [ONE], [memoryview(area)]), area


def test_what_came_before_is_taken() -> None:
    destination, area = made()
    chunks = {number: memoryview(DATA[32 * number : 32 * number + 32]) for number in range(3)}
    assert take(destination, chunks, memoryview(bytearray(3))) == 64
    assert destination.verified.full
    assert area[3:33] == DATA[40:70]
    with pytest.raises(Mismatch):
        take(made()[0], {1: memoryview(bytes(32))}, memoryview(bytearray(3)))


def test_whole_chunks() -> None:
    areas = [bytearray(32), bytearray(4)]
    destination = TensorDestination(MANIFEST, whole_chunks(MANIFEST, [1, 3]), [memoryview(a) for a in areas])
    assert list(destination.verified) == [0, 2]
    receive(destination, range(1, 2), DATA[32:64])
    receive(destination, range(3, 4), DATA[96:])
    assert areas == [DATA[32:64], DATA[96:]]


def test_nothing_is_copied_out_of_it() -> None:
    destination, _ = made()
    assert destination.place(range(1, 2)) is None
    with pytest.raises(SourceChanged):
        destination.copy(MANIFEST.chunk(1), destination.sink(range(2, 3), memoryview(bytearray(5))))
