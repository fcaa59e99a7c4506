"""How a batch keeps account of its slices; no sockets."""

from __future__ import annotations

import threading
from collections import deque

import pytest

from engine.errors import PeerUnreachable
from engine.memory.buffers import MemoryBuffer
from engine.protocol.wire import Opcode
from engine.transfer.batch import Batch, Slice, Transfer, TransferState
from engine.transfer.lanes import LANE_BYTES, MAX_PIPELINED, MAX_PIPELINED_BYTES, Job

LOST = PeerUnreachable(peer="p", detail="gone")


def made(*lengths: int, slice_size: int = 10, opcodes: str = "") -> tuple[Batch, list[Slice], list[str]]:
    """A batch of transfers of these lengths, their slices, and the names of those that were released."""
    released: list[str] = []
    transfers = []
    for number, length in enumerate(lengths):
        opcode = Opcode.WRITE if opcodes[number : number + 1] == "w" else Opcode.READ
        buffer = MemoryBuffer("m", bytearray(max(1, length)))
        transfers.append(Transfer(opcode, buffer, 0, 4096, length, lambda n=number: released.append(str(n))))  # type: ignore[misc]
    batch = Batch(transfers)
    pieces: list[Slice] = []
    for transfer in transfers:
        cut = list(transfer.cut(slice_size))
        batch.expect(transfer, len(cut))
        pieces += cut
    return batch, pieces, released


def test_a_transfer_is_cut_without_gaps() -> None:
    _, pieces, _ = made(25)
    assert [(each.offset, each.address, each.length) for each in pieces] == [
        (0, 4096, 10),
        (10, 4106, 10),
        (20, 4116, 5),
    ]


def test_bytes_count_slice_by_slice() -> None:
    batch, pieces, released = made(25, 5)
    batch.moved(pieces[1])
    assert (batch.status(0).transferred, batch.status(0).state) == (10, TransferState.PENDING)
    batch.moved(pieces[3])
    assert batch.status(1).state is TransferState.COMPLETED
    assert released == ["1"]
    assert not batch.wait(0)
    batch.moved(pieces[0])
    batch.moved(pieces[2])
    assert batch.wait(0)
    assert (batch.transferred, released) == (30, ["1", "0"])
    batch.raise_failed()


def test_no_bytes_are_complete_at_once() -> None:
    batch, pieces, released = made(0)
    assert (batch.done, pieces, released) == (True, [], ["0"])


def test_a_failed_transfer_is_over_only_when_all_its_slices_are() -> None:
    batch, pieces, released = made(25)
    batch.failed(pieces[0], LOST)
    assert batch.status(0).state is TransferState.PENDING
    assert not batch.wanted(pieces[1])
    batch.skipped(pieces[1])
    assert released == []
    batch.moved(pieces[2])  # was under way
    assert batch.wait(0)
    status = batch.status(0)
    assert (status.state, status.transferred, status.error) == (TransferState.FAILED, 5, LOST)
    assert released == ["0"]
    with pytest.raises(PeerUnreachable):
        batch.raise_failed()


def test_cancel_spares_what_is_over() -> None:
    batch, pieces, _ = made(10, 10)
    job = Job(batch, deque(pieces[1:]), 1)
    batch.on_cancel(job.abort)
    batch.moved(pieces[0])
    batch.cancel()
    assert [each.state for each in batch.statuses()] == [TransferState.COMPLETED, TransferState.CANCELLED]
    assert batch.done


def test_waiters_in_other_threads_are_woken() -> None:
    batch, pieces, _ = made(10)
    woken: list[bool] = []
    waiters = [threading.Thread(target=lambda: woken.append(batch.wait(20))) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    batch.moved(pieces[0])
    for waiter in waiters:
        waiter.join()
    assert woken == [True] * 3


def test_a_job_gives_each_lane_its_share() -> None:
    batch, pieces, _ = made(8 * LANE_BYTES, slice_size=LANE_BYTES)
    job = Job(batch, deque(pieces), 4)
    assert [len(job.take()) for _ in range(8)] == [2, 1, 1, 1, 1, 1, 1, 0]


def test_a_job_has_as_many_lanes_as_are_worth_it() -> None:
    batch, pieces, _ = made(*[LANE_BYTES // 4] * 9, slice_size=LANE_BYTES)
    assert Job(batch, deque(pieces), 4).lanes == 2
    assert Job(batch, deque(pieces[:3]), 4).lanes == 1
    assert Job(batch, deque(pieces), 1).lanes == 1
    batch, pieces, _ = made(100 * LANE_BYTES, slice_size=50 * LANE_BYTES)
    assert Job(batch, deque(pieces), 4).lanes == 2


def test_a_run_has_one_opcode_and_a_bound() -> None:
    batch, pieces, _ = made(*[10] * 6, opcodes="rrwwrr")
    job = Job(batch, deque(pieces), 1)
    assert [[each.transfer.opcode.name for each in job.take()] for _ in range(3)] == [
        ["READ"] * 2, ["WRITE"] * 2, ["READ"] * 2,
    ]  # fmt: skip
    batch, pieces, _ = made(*[1] * 100)
    assert len(Job(batch, deque(pieces), 1).take()) == MAX_PIPELINED
    batch, pieces, _ = made(3 * MAX_PIPELINED_BYTES, slice_size=MAX_PIPELINED_BYTES)
    assert len(Job(batch, deque(pieces), 1).take()) == 1


def test_what_is_put_back_comes_first_again() -> None:
    batch, pieces, _ = made(10, 10, 10)
    job = Job(batch, deque(pieces), 1)
    run = job.take()
    assert list(run) == pieces
    run.popleft()
    job.put_back(run)
    assert list(job.take()) == pieces[1:]
