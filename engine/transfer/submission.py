"""From what a caller asks for to jobs for the lanes: each request checked, its memory held, and cut into slices."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from engine import arguments
from engine.errors import Closed, MooncakeError, PeerStalled, UsageError
from engine.memory.buffers import Buffer, MemoryBuffer
from engine.memory.joined_buffer import JoinedBuffer
from engine.memory.registered import RegisteredMemory
from engine.protocol.wire import Opcode
from engine.transfer.batch import Batch, Slice, Transfer, TransferState
from engine.transfer.lanes import Job, Peer
from engine.transfer.remote_segment import Segment
from engine.transfer.requests import MAX_REQUESTS, TransferRequest, check_range, check_writable

if TYPE_CHECKING:
    from engine.config.settings import EngineSettings
    from engine.net.closing import Closing
    from engine.serving.segment_server import SegmentServer


class Submitter:
    """Begins what one engine is asked for. Thread-safe; all raise ``UsageError`` for what cannot be asked."""

    def __init__(self, server: SegmentServer, settings: EngineSettings, closing: Closing) -> None:
        """``server`` lends the registered memory. Once ``closing`` has begun, nothing more is begun."""
        self._server = server
        self._settings = settings
        self._closing = closing

    def submit(self, requests: Iterable[TransferRequest]) -> Batch:
        """Begin all ``requests``, and return at once."""
        batch, jobs = self._prepare(requests)
        for peer, job in jobs:
            peer.submit(job)
        return batch

    def carry_out(self, requests: Iterable[TransferRequest]) -> Batch:
        """Do all ``requests``, in this thread too, and return when each has ended."""
        batch, jobs = self._prepare(requests)
        with _interruptible(batch):
            for peer, job in jobs[1:]:
                peer.submit(job)
            for peer, job in jobs[:1]:
                peer.run(job)
            batch.wait()
        return batch

    def run(self, request: TransferRequest, timeout: float | None) -> None:
        """Do one, and wait for it: ``timeout`` seconds, or with None as long as bytes arrive. Raises why it failed."""
        if timeout is not None:
            timeout = arguments.seconds(timeout, "the timeout")
        if timeout is None and self._run_at_once(request):
            return
        if timeout is None:
            batch = self.carry_out([request])
        else:
            batch = self.submit([request])
            with _interruptible(batch):
                batch.wait(timeout)
            if not batch.done:
                batch.cancel()
                batch.wait()
                if batch.status(0).state is TransferState.CANCELLED:
                    raise PeerStalled(peer=request.segment.name, seconds=timeout)
        if self._closing.begun and batch.status(0).state is not TransferState.COMPLETED:
            raise Closed(what=self._closing.what)
        batch.raise_failed()

    def _run_at_once(self, request: TransferRequest) -> bool:
        """Do a transfer of one slice without a batch; false where that is not possible, and nothing has been said."""
        self._closing.check()
        transfer = self._transfer(request)
        try:
            if not 0 < transfer.length <= self._settings.slice_size:
                return False
            if request.segment.refusal(transfer.address, transfer.length) is not None:
                return False
            return request.segment.peer.run_at_once(next(transfer.cut(transfer.length)))
        finally:
            transfer.release()

    def _prepare(self, wanted: Iterable[TransferRequest]) -> tuple[Batch, list[tuple[Peer, Job]]]:
        if not isinstance(wanted, Iterable):
            raise arguments.refuse(wanted, "what is submitted", "a list of requests")
        requests = [arguments.instance(each, TransferRequest, "a request") for each in wanted]
        self._closing.check()
        if len(requests) > MAX_REQUESTS:
            raise UsageError(detail=f"{len(requests)} requests in a batch; at most {MAX_REQUESTS} are allowed")
        transfers: list[Transfer] = []
        try:
            for request in requests:
                transfers.append(self._transfer(request))  # noqa: PERF401 - what was made must be released on error
            batch = Batch(transfers)
            slices: dict[Peer, deque[Slice]] = {}
            for request, transfer in zip(requests, transfers, strict=True):
                pieces = self._begin(batch, request.segment, transfer)
                if pieces:
                    slices.setdefault(request.segment.peer, deque()).extend(pieces)
        except BaseException:
            for transfer in transfers:
                transfer.release()
            raise
        lanes = {request.segment.peer: request.segment.lanes for request in requests}
        jobs = [(peer, Job(batch, each, lanes[peer])) for peer, each in slices.items()]

        def abort() -> None:
            for _, job in jobs:
                job.abort()

        batch.on_cancel(abort)
        return batch, jobs

    def _begin(self, batch: Batch, segment: Segment, transfer: Transfer) -> list[Slice]:
        """The slices to move: none where there are no bytes, or where the transfer fails at once."""
        pieces = list(transfer.cut(self._settings.slice_size))
        batch.expect(transfer, len(pieces))
        if not pieces:
            return []
        try:
            refusal: MooncakeError | None = segment.refusal(transfer.address, transfer.length)
        except MooncakeError as error:
            refusal = error
        if refusal is None:
            return pieces
        for piece in pieces:
            batch.failed(piece, refusal)
        return []

    def _transfer(self, request: TransferRequest) -> Transfer:
        arguments.instance(request.segment, Segment, "a request's segment")
        arguments.instance(request.opcode, Opcode, "a request's opcode")
        local, offset = request.local, request.offset
        ours: Buffer | None = None
        if not isinstance(local, RegisteredMemory):
            ours = local if isinstance(local, JoinedBuffer) else MemoryBuffer("local memory", local)
        size = local.length if isinstance(local, RegisteredMemory) else ours.length if ours is not None else 0
        try:
            length = size - offset if request.length is None else request.length
            check_range(request.address, offset, length, size)
        except (UsageError, TypeError) as error:
            if ours is not None:
                ours.close()
            if isinstance(error, TypeError):
                raise arguments.refuse(offset, "the offset", "a whole number") from None
            raise
        if isinstance(local, RegisteredMemory):
            # No bytes are a range of one here: a lease on nothing does not exist.
            lease = self._server.lease(local.address + min(offset, size - 1), max(1, length))
            transfer = Transfer(request.opcode, lease.buffer, lease.offset, request.address, length, lease.release)
        else:
            assert ours is not None  # noqa: S101 - for the type checker
            transfer = Transfer(request.opcode, ours, offset, request.address, length, ours.close)
        if request.opcode is Opcode.READ and length:
            try:
                check_writable(transfer.buffer, transfer.offset)
            except BaseException:
                transfer.release()
                raise
        return transfer


@contextlib.contextmanager
def _interruptible(batch: Batch) -> Iterator[None]:
    """A wait for a batch: the caller who is interrupted takes the memory back."""
    try:
        yield
    except BaseException:
        batch.cancel()
        batch.wait()
        raise
