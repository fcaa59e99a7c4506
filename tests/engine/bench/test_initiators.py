from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from engine.bench.cases import Case, Operation
from engine.bench.initiators import EngineInitiator, Move, OurInitiator, SocketInitiator, in_threads
from engine.bench.targets import Target, TargetAddress
from engine.errors import BytesDiffer, PeerUnreachable, RangeRefused
from engine.protocol.wire import Opcode

LENGTH = 1 << 20


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target(LENGTH)
    yield made
    made.close()


@pytest.fixture
def ours(target: Target) -> Iterator[OurInitiator]:
    made = OurInitiator(target.address, LENGTH)
    yield made
    made.close()


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_ours_moves_whole_batches_and_leaves_the_right_bytes(
    ours: OurInitiator, operation: Operation, batch_size: int
) -> None:
    case = Case(operation, 30_000, batch_size, 3)
    ours.verify(case, 7)
    found = ours.measure(case, 0.1)
    ours.verify_after(case, 7)
    assert found.bytes == found.batches * case.batch_bytes > 0
    assert len(found.latencies) == found.batches * batch_size
    assert 0 < found.latencies.percentile(50) <= found.latencies.percentile(100) < found.seconds * 1e9 + 1


def test_the_socket_loop_leaves_the_pattern_that_engines_check(target: Target, ours: OurInitiator) -> None:
    case = Case(Operation.WRITE, 65536, 2, 2)
    loop = SocketInitiator(target.address, LENGTH)
    ours.verify(case, 7)
    loop.verify(case, 7)
    assert loop.measure(case, 0.1).bytes > 0
    ours.verify_after(case, 7)


def test_a_target_that_ended_is_told_of_by_the_socket_loop_as_by_an_engine(target: Target) -> None:
    loop = SocketInitiator(target.address, LENGTH)
    target.close()
    with pytest.raises(PeerUnreachable, match=r"^peer 127.0.0.1:\d+ cannot be reached: the socket loop: connection "):
        loop.measure(Case(Operation.MIXED, 65536, 2, 2), 0.1)


class Faulty(EngineInitiator):
    """Moves between two memories of this process, and ``break_at`` spoils the byte at that offset of what it reads."""

    name = "faulty"

    def __init__(self, break_at: int) -> None:
        super().__init__(TargetAddress("here", 0, LENGTH, "127.0.0.1"), LENGTH)
        self.there = bytearray(LENGTH)
        self.break_at = break_at

    def mover(self, case: Case, offset: int) -> Move:
        part = slice(offset, offset + case.batch_bytes)

        def move(opcode: Opcode) -> None:
            if opcode is Opcode.WRITE:
                self.there[part] = self.memory.map[part]
                return
            self.memory.map[part] = bytes(self.there[part])
            if offset <= self.break_at < offset + case.batch_bytes:
                self.memory.map[self.break_at] ^= 0x80

        return move


def test_verify_finds_one_wrong_bit_and_says_where() -> None:
    case = Case(Operation.READ, 65536, 4, 2)
    with pytest.raises(BytesDiffer, match="faulty: read in blocks of 65536 bytes left a wrong byte at offset 300001"):
        Faulty(300_001).verify(case, 1)
    whole = Faulty(LENGTH - 1)
    whole.verify(case, 1)
    whole.verify_after(case, 1)


def test_verify_afterwards_finds_what_the_measuring_spoiled_at_either_end() -> None:
    case = Case(Operation.READ, 65536, 4, 2)
    faulty = Faulty(LENGTH - 1)
    faulty.verify(case, 1)
    faulty.memory.map[17] ^= 1
    with pytest.raises(BytesDiffer, match="at offset 17 "):
        faulty.verify_after(case, 1)
    faulty.verify(case, 1)
    faulty.there[400_000] ^= 1
    with pytest.raises(BytesDiffer, match="at offset 400000 "):
        faulty.verify_after(case, 1)


def test_a_measurement_is_at_least_one_batch() -> None:
    found = Faulty(0).measure(Case(Operation.READ, 10, 1, 2), 0.0)
    assert (found.batches, found.bytes) == (2, 20)


def test_mixed_reads_and_writes_in_turn() -> None:
    seen: list[Opcode] = []

    class Noting(Faulty):
        def mover(self, case: Case, offset: int) -> Move:
            return seen.append

    Noting(0).measure(Case(Operation.MIXED, 1, 1, 1), 0.001)
    assert seen[:4] == [Opcode.READ, Opcode.WRITE, Opcode.READ, Opcode.WRITE][: len(seen)]
    assert set(seen[1:]) <= set(Opcode)


def test_a_target_that_is_gone_is_an_error(target: Target, ours: OurInitiator) -> None:
    case = Case(Operation.READ, 1000, 1, 1)
    ours.measure(case, 0.01)
    target.close()
    # Its last connection may be served, and refused, while it closes.
    with pytest.raises((PeerUnreachable, RangeRefused)):
        ours.measure(case, 0.01)


def test_threads_begin_together_and_the_first_error_is_raised() -> None:
    together = threading.Barrier(3)

    def act(index: int) -> int:
        together.wait(60)
        return index * index

    assert in_threads(3, act) == [0, 1, 4]

    def fail(index: int) -> None:
        if index == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        in_threads(3, fail)
