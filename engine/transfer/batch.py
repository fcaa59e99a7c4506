"""A batch of transfers: what was asked for, how far each request is, and who waits for it. No sockets here.

A request is cut into slices. Lanes (``engine.transfer.lanes``) move slices and report here; any thread may ask and
wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from engine import arguments, forks
from engine.errors import MooncakeError, UsageError
from engine.memory.buffers import Buffer
from engine.protocol.wire import Opcode


class TransferState(Enum):
    """How a request stands."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """One request's state, the bytes that have been moved, and what went wrong where it failed."""

    state: TransferState
    transferred: int
    error: MooncakeError | None = None


@dataclass(slots=True)
class Slice:
    """A piece of a transfer that one connection moves: ``length`` bytes at ``offset`` of the transfer's buffer."""

    transfer: Transfer
    offset: int
    address: int
    length: int
    attempts: int = 0


class Transfer:
    """One request under way. Its batch's lock guards what changes."""

    __slots__ = ("address", "buffer", "error", "left", "length", "offset", "opcode", "release", "state", "transferred")

    def __init__(
        self, opcode: Opcode, buffer: Buffer, offset: int, address: int, length: int, release: Callable[[], None]
    ) -> None:
        """``release`` is called once no thread uses the buffer any more."""
        self.opcode = opcode
        self.buffer = buffer
        self.offset = offset
        self.address = address
        self.length = length
        self.release = release
        self.state = TransferState.PENDING
        self.transferred = 0
        self.left = 0
        self.error: MooncakeError | None = None

    def cut(self, slice_size: int) -> Iterator[Slice]:
        """Its slices, in order."""
        for at in range(0, self.length, slice_size):
            count = min(slice_size, self.length - at)
            yield Slice(self, self.offset + at, self.address + at, count)


class Batch:
    """Requests that were submitted together. Thread-safe; a request is over once no thread touches its memory."""

    def __init__(self, transfers: Sequence[Transfer]) -> None:
        """Made by ``TransferEngine.submit_transfer``."""
        self._transfers = tuple(transfers)
        self._origin = forks.Origin("this batch")
        self._changed = threading.Condition(threading.Lock())
        self._pending = len(self._transfers)
        self._cancelled = False
        self._abort: Callable[[], None] = lambda: None

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_be_sent("a batch")

    def __len__(self) -> int:
        return len(self._transfers)

    @property
    def done(self) -> bool:
        """Whether every request is over, well or not."""
        self._origin.check()
        return not self._pending

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    @property
    def transferred(self) -> int:
        """Bytes moved so far, over all requests."""
        self._origin.check()
        with self._changed:
            return sum(transfer.transferred for transfer in self._transfers)

    def status(self, index: int) -> TransferStatus:
        """Request ``index`` as it stands. Raises ``UsageError`` for an index out of range."""
        self._origin.check()
        arguments.whole(index, "the number of a request")
        if not 0 <= index < len(self._transfers):
            raise UsageError(detail=f"request {index} of a batch of {len(self._transfers)}")
        with self._changed:
            transfer = self._transfers[index]
            # What failed or was cancelled is over only when its last slice has let go of the memory.
            state = TransferState.PENDING if transfer.left else transfer.state
            return TransferStatus(state, transfer.transferred, transfer.error)

    def statuses(self) -> list[TransferStatus]:
        """All requests as they stand, in order."""
        return [self.status(index) for index in range(len(self._transfers))]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, at most ``timeout`` seconds, until every request is over; whether it is so."""
        self._origin.check()
        if timeout is not None:
            timeout = arguments.seconds(timeout, "the timeout")
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout)

    def cancel(self) -> None:
        """Begin no further slice, and break off those under way; ``wait`` then ends soon. Over is over."""
        self._origin.check()
        with self._changed:
            self._cancelled = True
        self._abort()

    def raise_failed(self) -> None:
        """Raise the error of the first request that failed, and ``UsageError`` if one was cancelled."""
        for status in self.statuses():
            if status.error is not None:
                raise status.error
            if status.state is TransferState.CANCELLED:
                raise UsageError(detail="the transfer was cancelled")

    # For the lanes

    def on_cancel(self, abort: Callable[[], None]) -> None:
        """Have ``cancel`` call ``abort``, which breaks off the connections of this batch."""
        self._abort = abort

    def expect(self, transfer: Transfer, slices: int) -> None:
        """Say how many slices a transfer has; without any it is complete."""
        transfer.left = slices
        if not slices:
            self._finish(transfer)

    def wanted(self, piece: Slice) -> bool:
        """Whether a slice is still to be moved."""
        return not self._cancelled and piece.transfer.state is TransferState.PENDING

    def moved(self, piece: Slice) -> None:
        """A slice has arrived."""
        transfer = piece.transfer
        with self._changed:
            transfer.transferred += piece.length
            transfer.left -= 1
            last = not transfer.left
        if last:
            self._finish(transfer)

    def failed(self, piece: Slice, error: MooncakeError) -> None:
        """A slice was given up."""
        with self._changed:
            if piece.transfer.state is TransferState.PENDING:
                piece.transfer.state = TransferState.FAILED
                piece.transfer.error = error
        self._leave(piece)

    def skipped(self, piece: Slice) -> None:
        """A slice that is not wanted any more was not moved."""
        with self._changed:
            if piece.transfer.state is TransferState.PENDING:
                piece.transfer.state = TransferState.CANCELLED
        self._leave(piece)

    def pause(self, seconds: float) -> None:
        """Sleep, unless the batch is cancelled meanwhile."""
        until = time.monotonic() + seconds
        while not self._cancelled and time.monotonic() < until:
            time.sleep(min(0.02, seconds))

    def _leave(self, piece: Slice) -> None:
        with self._changed:
            piece.transfer.left -= 1
            last = not piece.transfer.left
        if last:
            self._finish(piece.transfer)

    def _finish(self, transfer: Transfer) -> None:
        try:
            transfer.release()
        finally:
            with self._changed:
                if transfer.state is TransferState.PENDING:
                    transfer.state = TransferState.COMPLETED
                self._pending -= 1
                if not self._pending:
                    self._changed.notify_all()
