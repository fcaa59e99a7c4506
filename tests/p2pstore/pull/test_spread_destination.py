"""Pieces of an object in several GPUs' memory: chunks are hashed once, and what is right goes to all who want it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.fake_driver import FakeDriver
from p2pstore.errors import Interrupted, SourceChanged, UsageError
from p2pstore.pull import spread_destination
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.pieces_destination import take
from p2pstore.pull.spread_destination import SpreadDestination
from p2pstore.tensors.plan import Piece
from tests.engine.cuda.gpus import Tensor, fake, nothing_left, without_torch
from tests.p2pstore.pull.destinations import receive
from tests.p2pstore.samples import content, manifest_of

DATA = content(100)
MANIFEST = manifest_of({"": DATA}, 32)
ONE = Piece(source=40, row=30, stride=30, rows=1, area=0, to=3)
ROWS = Piece(source=75, row=2, stride=7, rows=4, area=0, to=34)
OTHER_ROWS = ROWS._replace(source=77, to=0)
EXPECTED = DATA[40:70], b"".join(DATA[at : at + 2] for at in (75, 82, 89, 96))
OTHERS = b"".join(DATA[at : at + 2] for at in (77, 84, 91, 98))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    without_torch(monkeypatch)
    with fake(3, delay=0.0005) as driver:
        yield driver
        nothing_left(driver)


class Made:
    """A destination, and the memory that it fills: by sets of pieces, GPUs."""

    def __init__(self, gpu: FakeDriver, sets: list[list[Piece]], devices: list[list[int]]) -> None:
        self.rooms = [[Tensor(gpu, bytes(50), device=device) for device in each] for each in devices]
        self.memories = [[device_memory(room, "it", writable=True) for room in rooms] for rooms in self.rooms]
        self.destination = SpreadDestination(MANIFEST, sets, [[[memory] for memory in each] for each in self.memories])

    def contents(self) -> list[list[bytes]]:
        self.destination.finish()
        return [[room.content for room in rooms] for rooms in self.rooms]


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("scratch", [1, 5, 1000])
def test_each_gets_what_it_wants(gpu: FakeDriver, step: int, scratch: int) -> None:
    made = Made(gpu, [[ONE, ROWS], [OTHER_ROWS]], [[0, 1, 1], [2]])
    destination = made.destination
    assert list(destination.verified) == [0]
    assert destination.left_out == 32
    assert receive(destination, range(1, 4), DATA[32:], step, scratch) == 3
    one, rows = EXPECTED
    same = bytes(3) + one + bytes(1) + rows + bytes(8)
    assert made.contents() == [[same] * 3, [OTHERS + bytes(42)]]
    assert gpu.to_devices == len(one) + len(rows) + len(OTHERS) + 6 * 256 * 1024, "and the tries"


def test_wrong_bytes_go_nowhere(gpu: FakeDriver) -> None:
    made = Made(gpu, [[ONE]], [[0, 1]])
    with pytest.raises(Mismatch) as wrong:
        receive(made.destination, range(1, 3), b"!" + DATA[33:96])
    assert wrong.value.chunk == 1
    made.destination.abort()
    assert [room.content for room in made.rooms[0]] == [bytes(50)] * 2


def test_what_came_before_is_taken(gpu: FakeDriver) -> None:
    made = Made(gpu, [[ONE]], [[2, 0]])
    chunks = {number: memoryview(DATA[32 * number : 32 * number + 32]) for number in range(3)}
    assert take(made.destination, chunks, memoryview(bytearray(3))) == 64
    assert made.destination.verified.full
    assert made.contents() == [[bytes(3) + DATA[40:70] + bytes(17)] * 2]


def test_in_the_end_all_memory_is_let_go(gpu: FakeDriver) -> None:
    made = Made(gpu, [[ONE]], [[0, 1]])
    sink = made.destination.sink(range(1, 2), memoryview(bytearray(5)))
    made.destination.abort(0)
    with pytest.raises(Interrupted):
        sink.buffer(10)
    sink.close()
    for memory in made.memories[0]:
        assert isinstance(memory, DeviceMemory)
        with pytest.raises(ValueError, match="released"):
            _ = memory.cuda


def test_nothing_but_names_is_wanted() -> None:
    """Of tensors without bytes there is no memory of a GPU at all."""
    destination = SpreadDestination(MANIFEST, [[]], [[[memoryview(bytearray())]] * 2])
    assert destination.verified.full
    destination.finish()


def test_slices_that_overlap_too_much_are_refused(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_destination, "ARRIVING_BYTES", 10)
    made = Made(gpu, [[ONE]], [[0]])
    with pytest.raises(UsageError, match="more than may be pinned: by cut= their slices overlap"):
        made.destination.sink(range(1, 2), memoryview(bytearray(5)))
    made.destination.abort()


def test_chunks_are_not_kept_as_a_whole(gpu: FakeDriver) -> None:
    made = Made(gpu, [[ONE]], [[0]])
    assert made.destination.place(range(1)) is None
    sink = made.destination.sink(range(1, 2), memoryview(bytearray(5)))
    with pytest.raises(SourceChanged):
        made.destination.copy(MANIFEST.chunk(1), sink)
    sink.close()
    made.destination.abort()
