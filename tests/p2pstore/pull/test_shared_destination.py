"""What one of several processes brings for all: only what others want takes room that all can read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.cuda import load
from engine.cuda.device_memory import device_memory
from engine.cuda.fake_driver import FakeDriver
from engine.cuda.pinned import PinnedBuffer
from engine.memory.shared import SharedMemory
from p2pstore.pull.shared_destination import SharedDestination
from p2pstore.sharing.ring import LEAST_BUFFERS, Ring, buffers_for
from p2pstore.tensors.plan import Piece
from p2pstore.tensors.spread import SpreadMap
from tests.engine.cuda.gpus import Array, fake, nothing_left, without_torch
from tests.p2pstore.samples import MIB, content, manifest_of

DATA = content(3 * MIB)
MANIFEST = manifest_of({"": DATA}, MIB)
SHARED = {1}


class Offered:
    """Takes what is offered to others."""

    def __init__(self) -> None:
        self.chunks: list[int] = []
        self.events: list[int] = []

    def check(self) -> None:
        """Nothing went wrong."""

    def brought(self, chunk: int, buffer: PinnedBuffer, event: int) -> None:
        self.chunks.append(chunk)
        self.events.append(event)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    without_torch(monkeypatch)
    with fake(1) as driver:
        yield driver
        nothing_left(driver)


def test_what_nobody_else_wants_takes_no_room_in_the_ring(gpu: FakeDriver) -> None:
    array = Array(gpu, bytes(len(DATA)))
    memory = SharedMemory(2 * buffers_for(MIB, 2) * MIB)
    ring = Ring(memory.fd, 0, 2, MIB, load.cuda(), 0)
    memory.close()
    offered = Offered()
    spread = SpreadMap([[Piece(0, len(DATA), len(DATA), 1, 0, 0)]])
    area = device_memory(array, "memory", writable=True)
    made = SharedDestination(MANIFEST, range(3), SHARED, spread, 0, [area], load.cuda(), ring, offered)
    staged = [made.stage(MIB, chunk) for chunk in range(3)]
    assert [ring.has(buffer) for buffer in staged] == [False, True, False]
    for chunk, buffer in enumerate(staged):
        buffer.view[:MIB] = DATA[chunk * MIB : (chunk + 1) * MIB]
        made.land(buffer, spread.layout(chunk * MIB, (chunk + 1) * MIB), chunk)
    assert offered.chunks == [1]
    assert made.copies.settle(60)
    assert array.content == DATA
    with gpu.on(0):
        gpu.end_event(offered.events[0])
    ring.give(staged[1])
    assert len({ring.take(lambda: None).address for _ in range(LEAST_BUFFERS)}) == LEAST_BUFFERS
    made.copies.close()
    ring.close()
