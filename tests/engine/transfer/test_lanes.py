"""Lanes over connections that do what a test says: turns, errors that nobody foresaw, threads that are refused, the end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from engine.config.settings import EngineSettings
from engine.errors import Closed, MooncakeError
from engine.memory.buffers import MemoryBuffer
from engine.protocol.wire import Opcode
from engine.transfer.batch import Batch, Slice, Transfer, TransferState
from engine.transfer.endpoint import Endpoint
from engine.transfer.lanes import Job, Peer

WAIT = 30.0

Move = Callable[["Fake", Slice], None]
"""What a connection does for a slice."""


class Fake:
    """A connection for which a function moves slices."""

    def __init__(self, move: Move) -> None:
        self.endpoint = Endpoint("peer", "127.0.0.1", 1, 2)
        self.aborted = False
        self.broken = threading.Event()
        self.closed = False
        self._move = move

    def abort(self) -> None:
        self.aborted = True
        self.broken.set()

    def close(self) -> None:
        self.closed = True

    def carry(self, run: deque[Slice], moved: Callable[[Slice], None]) -> None:
        while run:
            self._move(self, run[0])
            moved(run.popleft())


class Work:
    """Batches of reads, and whether their memory was given back."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.released: list[str] = []

    def job(self, name: str, slices: int = 1, lanes: int = 1) -> tuple[Batch, Job]:
        size = slices << 20
        buffer = MemoryBuffer(name, bytearray(size))
        transfer = Transfer(Opcode.READ, buffer, 0, 4096, size, lambda: self.released.append(name))
        batch = Batch([transfer])
        pieces = deque(transfer.cut(1 << 20))
        batch.expect(transfer, len(pieces))
        job = Job(batch, pieces, lanes)
        batch.on_cancel(job.abort)
        return batch, job

    def submit(self, name: str, slices: int = 1, lanes: int = 1) -> Batch:
        batch, job = self.job(name, slices, lanes)
        self.peer.submit(job)
        return batch


Make = Callable[..., Work]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Peer] = []

    def one(move: Move, **settings: int) -> Work:
        made.append(
            Peer("peer", lambda _: Endpoint("peer", "h", 1, 2), EngineSettings(**settings), lambda *_: Fake(move))
        )
        return Work(made[-1])

    yield one
    for peer in made:
        peer.close()


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def error_of(batch: Batch) -> MooncakeError:
    assert batch.wait(WAIT)
    status = batch.status(0)
    assert status.state is TransferState.FAILED
    assert status.error is not None
    return status.error


def unforeseen(connection: Fake, piece: Slice) -> None:
    raise ValueError("unforeseen")


@pytest.mark.parametrize("lanes", [1, 3])
def test_an_error_that_nobody_foresaw_ends_the_batch_and_gives_its_memory_back(make: Make, lanes: int) -> None:
    """D8: the lane lost the slices that it had taken, so the batch never ended."""
    work = make(unforeseen)
    batch = work.submit("a", 40, lanes)
    assert str(error_of(batch)) == "internal error: ValueError: unforeseen"
    assert work.released == ["a"]


def test_a_synchronous_transfer_ends_with_the_error_that_nobody_foresaw(make: Make) -> None:
    """D8: as above, in the caller's own thread."""
    work = make(unforeseen)
    batch, job = work.job("a", 40, 2)
    work.peer.run(job)
    assert "unforeseen" in str(error_of(batch))
    assert work.released == ["a"]


def test_a_peer_serves_the_next_batch_after_such_an_error_and_tells_of_it(make: Make) -> None:
    """D8: the lane goes on."""
    failing = threading.Event()
    failing.set()

    def move(connection: Fake, piece: Slice) -> None:
        if failing.is_set():
            raise ValueError("unforeseen")

    work = make(move, lanes=1)
    error_of(work.submit("a"))
    failing.clear()
    assert work.submit("b").wait(WAIT)
    (failure,) = work.peer.failures
    assert (failure.name, failure.count, failure.error) == ("lane to peer", 1, "ValueError: unforeseen")


def test_an_error_in_locating_the_peer_ends_the_batch() -> None:
    """D8: nor may one that comes before there is a connection."""

    def locate(again: bool) -> Endpoint:
        raise ZeroDivisionError

    peer = Peer("peer", locate, EngineSettings())
    work = Work(peer)
    assert "ZeroDivisionError" in str(error_of(work.submit("a", 3)))
    assert work.released == ["a"]
    peer.close()


def test_memory_that_cannot_be_given_back_does_not_keep_a_batch_from_ending(make: Make) -> None:
    """D8: the last slice of a transfer raised in the lane's hands."""
    work = make(lambda *_: None)

    def broken() -> None:
        raise BufferError("in use")

    transfer = Transfer(Opcode.READ, MemoryBuffer("a", bytearray(10)), 0, 4096, 10, broken)
    batch = Batch([transfer])
    batch.expect(transfer, 1)
    work.peer.submit(Job(batch, deque(transfer.cut(10)), 1))
    assert batch.wait(WAIT)


def test_an_interruption_of_a_synchronous_transfer_leaves_nothing_behind(make: Make) -> None:
    """D8: Ctrl-C in the thread that moves the bytes."""

    def interrupted(connection: Fake, piece: Slice) -> None:
        raise KeyboardInterrupt

    work = make(interrupted)
    batch, job = work.job("a", 5)
    with pytest.raises(KeyboardInterrupt):
        work.peer.run(job)
    error_of(batch)
    assert work.released == ["a"]


def test_without_a_thread_a_submitted_batch_fails_and_a_synchronous_one_is_moved(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1's sibling: a lane that could not be started was joined when the peer was closed."""
    work = make(lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert "no thread" in str(error_of(work.submit("a", 5, 3)))
        batch, job = work.job("b", 5, 3)
        work.peer.run(job)
        assert batch.done
    assert work.submit("c", 5, 3).wait(WAIT)
    assert work.released == ["a", "b", "c"]


def test_jobs_have_their_turns_in_the_order_in_which_they_came(make: Make) -> None:
    """D17: a free lane took the second of two jobs first."""
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def move(connection: Fake, piece: Slice) -> None:
        begun.set()
        assert go_on.wait(WAIT)
        order.append(piece.transfer.buffer.name)

    work = make(move, lanes=1)
    batches = [work.submit("first")]
    assert begun.wait(WAIT)
    batches += [work.submit(name) for name in ("a", "b", "c", "d")]
    go_on.set()
    assert all(batch.wait(WAIT) for batch in batches)
    assert order == ["first", "a", "b", "c", "d"]


class Hanging:
    """Moves that hang until their connection is broken off; then, or when they are let go on, they write."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, connection: Fake, piece: Slice) -> None:
        self.begun.release()
        while not connection.broken.wait(0.01):
            if self.go_on.is_set():
                view = piece.transfer.buffer.view(piece.offset, 1)
                assert view is not None
                view[0] = 1
                return
        raise ConnectionAbortedError


def test_close_breaks_off_batches_of_which_all_slices_are_taken(make: Make) -> None:
    """D11: they were in no list, and their bytes came after ``close`` had returned."""
    moves = Hanging()
    work = make(moves, lanes=4)
    batches = []
    for number in range(4):
        batches.append(work.submit(str(number)))
        assert moves.begun.acquire(timeout=WAIT)
    work.peer.close()
    moves.go_on.set()
    assert all(batch.wait(WAIT) for batch in batches)
    assert [batch.status(0).state for batch in batches] == [TransferState.CANCELLED] * 4
    assert sorted(work.released) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("lanes", [1, 2])
def test_close_breaks_off_a_synchronous_transfer(make: Make, lanes: int) -> None:
    """D11: one of a single lane was never in a list."""
    moves = Hanging()
    work = make(moves)
    batch, job = work.job("a", 2, lanes)
    thread = threading.Thread(target=work.peer.run, args=(job,))
    thread.start()
    assert moves.begun.acquire(timeout=WAIT)
    work.peer.close()
    moves.go_on.set()
    assert batch.wait(WAIT)
    assert batch.status(0).state is TransferState.CANCELLED
    thread.join(WAIT)
    assert work.released == ["a"]


def test_nothing_begins_after_close(make: Make) -> None:
    """D11: what is submitted then fails, and its memory is given back."""
    work = make(lambda *_: None)
    work.peer.close()
    assert isinstance(error_of(work.submit("a", 3)), Closed)
    batch, job = work.job("b")
    work.peer.run(job)
    assert isinstance(error_of(batch), Closed)
    assert work.released == ["a", "b"]
    work.peer.close()
