"""The client's data plane: its own memory in the pool, and bytes between others' memory and this program's.

Three ways, by where the bytes lie: our own segment and that of a process of this host are copied in place, all others
go over the engine's lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from engine.config.settings import EngineSettings
from engine.engine import Opcode, RegisteredMemory, Segment, TransferEngine, TransferRequest
from engine.errors import Closed, ForkedProcess, MooncakeError, RangeRefused
from engine.memory.copying import copy
from engine.memory.joined_buffer import JoinedBuffer
from engine.memory.shared import MappedFileBuffer, SharedBuffer, SharedMemory
from engine.net.threads import Failure
from engine.transports.neighbours import Neighbours
from engine.transports.rdma.nics import Nics

CONNECT_SECONDS = 3.0
"""For another client to take a connection: there may be a replica elsewhere."""

STALL_SECONDS = 6.0
"""Without a byte, after which a transfer is given up."""

RETRIES = 1
"""Of a transfer, with a new connection: the one that was kept may have been closed. More is the caller's business."""


SEGMENT_START = 2048
"""Where in a page our segments begin.

Programs' memory nearly always begins at a page's boundary, or 16 to 48 bytes behind one, as ``malloc`` gives it, and so
would most values: they are whole pages long. But what is copied from one such place to the other takes up to 2.5 times
as long, for values of 64 KiB up to 1 MiB on AMD's Zen 4 (``rep movsb`` with glibc 2.36): nearly the same place in the
page is what the processor takes for the same place.
"""

RUN_BYTES = 64 << 20
"""Of pieces that are moved by one request: what fails is asked for again from its beginning."""


class Piece(NamedTuple):
    """``len(view)`` bytes at ``address`` of the segment ``endpoint``, and the memory here that they come to or from."""

    endpoint: str
    address: int
    view: memoryview


class DataPlane:
    """Serves this client's memory and moves bytes. Thread-safe."""

    def __init__(
        self,
        hostname: str,
        metadata_server: str,
        *,
        protocol: str,
        devices: str,
        bind: str | None = None,
        settings: EngineSettings | None = None,
        neighbours: bool = True,
        ports: range | None = None,
        nics: Nics | None = None,
    ) -> None:
        """``hostname`` to ``devices`` are as ``TransferEngine`` takes them, and so is what it raises.

        Without ``neighbours`` processes of this host come over the network, too. ``ports`` are those to choose from
        where the settings say none. ``nics`` are as ``TransferEngine`` takes them.
        """
        loaded = settings or EngineSettings.load()
        if ports is not None and loaded.ports is None:
            loaded = replace(loaded, min_port=ports.start, max_port=ports.stop - 1)
        self.engine = TransferEngine(
            hostname,
            metadata_server,
            protocol,
            devices,
            bind=bind,
            settings=replace(loaded, connect_timeout=CONNECT_SECONDS, stall_timeout=STALL_SECONDS, retries=RETRIES),
            hand_over=neighbours,
            nics=nics,
        )
        self.endpoint = self.engine.segment_name
        self._neighbours = Neighbours() if neighbours else None
        self._own: list[tuple[int, int, memoryview]] = []
        self._segments: dict[str, Segment] = {}
        self.copied = 0
        """Bytes that were copied in memory."""
        self.moved = 0
        """Bytes that went over the engine's lanes."""

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in threads."""
        return self.engine.failures

    @property
    def offers(self) -> bool:
        """Whether this client has memory in the pool."""
        return bool(self._own)

    def offer(self, length: int) -> RegisteredMemory:
        """New memory that others may read and write. Raises as ``register_memory``."""
        memory = SharedMemory(length, start=SEGMENT_START)
        try:
            offered = self.engine.register_memory(SharedBuffer("segment", memory), writable=True)
        except BaseException:
            memory.close()
            raise
        self._own = [*self._own, (offered.address, offered.address + length, memory.view)]
        return offered

    def offer_file(self, path: str, length: int, offset: int) -> RegisteredMemory:
        """The same with part of a file in place of new memory. Raises as ``MappedFileBuffer`` besides."""
        buffer = MappedFileBuffer("segment", path, length, offset)
        view = buffer.whole[:]
        try:
            offered = self.engine.register_memory(buffer, writable=True)
        except BaseException:
            view.release()
            buffer.close()
            raise
        self._own = [*self._own, (offered.address, offered.address + length, view)]
        return offered

    def lend(self, length: int) -> tuple[RegisteredMemory, memoryview]:
        """New memory that others may read until it is withdrawn, and a view with which to fill it.

        Raises as ``register_memory``.
        """
        memory = SharedMemory(length)
        try:
            lent = self.engine.register_memory(SharedBuffer("values", memory), writable=False)
        except BaseException:
            memory.close()
            raise
        return lent, memory.view

    def withdraw(self, memory: RegisteredMemory, *, timeout: float) -> bool:
        """Offer it no more, and wait up to ``timeout`` seconds for those at work in it; whether they have ended."""
        self._own = [each for each in self._own if each[0] != memory.address]
        return self.engine.unregister_memory(memory, timeout=timeout)

    def near(self, endpoint: str) -> bool:
        """Whether the memory behind an endpoint is in this process already."""
        return endpoint == self.endpoint or (self._neighbours is not None and self._neighbours.knows(endpoint))

    def in_place(self, endpoint: str, address: int, length: int) -> memoryview | None:
        """A range as memory of this process, ours or a neighbour's; None where it is not. Not to be kept."""
        if endpoint == self.endpoint:
            for start, end, view in self._own:
                if start <= address and address + length <= end:
                    return view[address - start : address - start + length]
            return None
        return None if self._neighbours is None else self._neighbours.view(endpoint, address, length)

    def read(self, pieces: Sequence[Piece]) -> list[MooncakeError | None]:
        """Fill each piece's view; what went wrong with each. Raises ``Closed`` and interruptions."""
        return self._move(Opcode.READ, pieces)

    def read_one(self, endpoint: str, address: int, view: memoryview) -> bool:
        """Fill one view from elsewhere; whether that went well. What went wrong ``read`` tells. Raises as ``read``."""
        return endpoint != self.endpoint and self._move_one(Opcode.READ, Piece(endpoint, address, view)) is None

    def write(self, pieces: Sequence[Piece]) -> list[MooncakeError | None]:
        """Take each piece's view to where it says; what went wrong with each. Raises as ``read``."""
        return self._move(Opcode.WRITE, pieces)

    def let_go(self, endpoint: str, address: int) -> None:
        """Keep nothing of the memory there, which ``lend`` has made for one use: it would stay as long as its owner."""
        if self._neighbours is not None:
            self._neighbours.let_go(endpoint, address)

    def forget_gone(self) -> None:
        """Let go of the memory of neighbours that have ended. To be called now and then."""
        if self._neighbours is not None:
            self._neighbours.forget_gone()

    def close(self) -> None:
        """Serve no more. Twice is harmless."""
        self._own = []
        if self._neighbours is not None:
            self._neighbours.close()
        self.engine.close()

    def _move(self, opcode: Opcode, pieces: Sequence[Piece]) -> list[MooncakeError | None]:
        outcome: list[MooncakeError | None] = [None] * len(pieces)
        far: list[int] = []
        for place, (endpoint, address, view) in enumerate(pieces):
            here = self.in_place(endpoint, address, len(view))
            if here is not None:
                self.copied += len(view)
                if opcode is Opcode.READ:
                    copy(view, here)
                else:
                    copy(here, view)
            elif endpoint == self.endpoint:
                outcome[place] = RangeRefused(peer=endpoint, address=address, length=len(view))
            else:
                far.append(place)
        if len(far) == 1:
            outcome[far[0]] = self._move_one(opcode, pieces[far[0]])
        elif far:
            self._move_many(opcode, pieces, far, outcome)
        return outcome

    def _move_one(self, opcode: Opcode, piece: Piece) -> MooncakeError | None:
        self.moved += len(piece.view)
        try:
            segment = self._segment(piece.endpoint)
            move = self.engine.read if opcode is Opcode.READ else self.engine.write
            move(piece.view, segment, piece.address)
        except MooncakeError as error:
            self._check(error)
            self._segments.pop(piece.endpoint, None)
            return error
        return None

    def _move_many(
        self, opcode: Opcode, pieces: Sequence[Piece], far: list[int], outcome: list[MooncakeError | None]
    ) -> None:
        segments: dict[str, Segment | MooncakeError] = {}
        good: list[int] = []
        for place in far:
            endpoint = pieces[place].endpoint
            segment = segments.get(endpoint)
            if segment is None:
                try:
                    segment = self._segment(endpoint)
                except MooncakeError as error:
                    self._check(error)
                    segment = error
                segments[endpoint] = segment
            if isinstance(segment, MooncakeError):
                outcome[place] = segment
            else:
                good.append(place)
                self.moved += len(pieces[place].view)
        runs = _runs(pieces, good, segments)
        batch = self.engine.carry_out([_request(opcode, [pieces[place] for place in run], segments) for run in runs])
        for run, status in zip(runs, batch.statuses(), strict=True):
            if status.error is not None:
                self._segments.pop(pieces[run[0]].endpoint, None)
                for place in run:
                    outcome[place] = status.error

    def _segment(self, endpoint: str) -> Segment:
        """Raises as ``TransferEngine.open_segment``."""
        found = self._segments.get(endpoint)
        if found is None:
            found = self._segments[endpoint] = self.engine.open_segment(endpoint)
        return found

    def _check(self, error: MooncakeError) -> None:
        """Raise what says that this process may do nothing here, instead of what befell one piece."""
        if isinstance(error, (Closed, ForkedProcess)):
            raise error


def _runs(
    pieces: Sequence[Piece], places: list[int], segments: Mapping[str, Segment | MooncakeError]
) -> list[list[int]]:
    """Places of pieces that lie one behind the other, as values do that were put together: one request moves them."""
    runs: list[list[int]] = []
    before: Piece | None = None
    size = 0
    for place in sorted(places, key=lambda each: pieces[each][:2]):
        piece = pieces[place]
        follows = (
            before is not None
            and piece.endpoint == before.endpoint
            and piece.address == before.address + len(before.view)
            and size + len(piece.view) <= RUN_BYTES
            and not _over_rdma(segments[piece.endpoint])
        )
        if follows:
            runs[-1].append(place)
            size += len(piece.view)
        else:
            runs.append([place])
            size = len(piece.view)
        before = piece
    return runs


def _over_rdma(segment: Segment | MooncakeError) -> bool:
    return isinstance(segment, Segment) and segment.over_rdma


def _request(opcode: Opcode, run: Sequence[Piece], segments: Mapping[str, Segment | MooncakeError]) -> TransferRequest:
    segment = segments[run[0].endpoint]
    assert isinstance(segment, Segment)  # noqa: S101 - for the type checker
    if len(run) == 1:
        return TransferRequest(opcode, run[0].view, segment, run[0].address)
    joined = JoinedBuffer("pieces", [piece.view[:] for piece in run], fillable=opcode is Opcode.READ)
    return TransferRequest(opcode, joined, segment, run[0].address)
