"""Copies between pinned memory and GPUs: those of one get, or of one registered object, each GPU's in its own stream.

What comes to a GPU is whole in a pinned buffer first, so that it can be hashed; the copy from there is put into a
stream, and the buffer comes back by itself. What goes out is copied piece by piece, the next while one is used.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple

from engine.cuda.device_memory import DeviceMemory
from engine.cuda.driver import lasting, recorded
from engine.cuda.load import Cuda
from engine.cuda.pinned import PinnedBuffer, stream_done, until_done
from engine.errors import GpuFailed

PIECE_BYTES = 1 << 20
"""What goes out of a GPU at once: a copy of less takes longer by the byte, and what is used stays in a core's cache."""


class FromHere(NamedTuple):
    """``rows`` of ``row`` bytes, the first at ``source`` and the next ``stride`` bytes after it, and where they go.

    There, from ``offset`` on in ``memory``, they lie end to end.
    """

    source: int
    memory: DeviceMemory
    offset: int
    row: int
    rows: int = 1
    stride: int = 0


TELL_SECONDS = 10.0
"""So often it is logged that the end of copies is still waited for."""

log = logging.getLogger(__name__)


def wanted() -> None:
    """A check that never objects."""


class Copies:
    """The streams of one get or of one registered object. Thread-safe."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._driver = cuda.driver
        self._lock = threading.Lock()
        self._streams: dict[tuple[int, int, bool], int] = {}  # of a GPU, for copies to one, and whether from the first
        self._stranded: list[PinnedBuffer] = []
        self._waited: set[tuple[int, int]] = set()  # streams, and events that they wait for

    def take(self, length: int, device: int, check: Callable[[], None]) -> PinnedBuffer:
        """A pinned buffer for what comes; see ``PinnedPool.take``."""
        return self._cuda.arriving.take(length, device, check)

    def give(self, buffer: PinnedBuffer) -> None:
        """Give one back that is not to be copied."""
        self._cuda.arriving.give(buffer)

    def put(self, buffer: PinnedBuffer, parts: Sequence[FromHere]) -> None:
        """Copy parts of ``buffer`` to memory of one GPU, and let the ring have it when that is done.

        The buffer is no longer the caller's, even where this raises ``GpuFailed``; it is used again when this is
        closed where a copy may be under way.
        """
        try:
            stream, event = self._begun(parts, across=False)
        except BaseException:
            self._strand(buffer)
            raise
        self._cuda.arriving.give_after(buffer, parts[0].memory.device, stream, event)

    def begin(self, parts: Sequence[FromHere], *, across: bool = False) -> int:
        """Begin to copy from addresses to memory of one GPU, and return the event that tells the end, the caller's now.

        With ``across`` it comes, in one row each, from memory of GPUs that is mapped here, and otherwise from pinned
        memory; it must stay as it is until then, and where this raises ``GpuFailed``, until the copies are closed.
        """
        _, event = self._begun(parts, across=across)
        return event

    def _begun(self, parts: Sequence[FromHere], *, across: bool) -> tuple[int, int]:
        """See ``begin``: the stream and the event."""
        driver, device = self._driver, parts[0].memory.device
        with driver.on(device):
            memories = [part.memory for part in parts]
            stream, event = self._stream_to(device, device, memories, onward=across), driver.event()
            try:
                for part in parts:
                    if across:
                        driver.to_peer(part.memory.address + part.offset, part.source, part.row, stream, device)
                    else:
                        self._put(part, stream)
                driver.record(event, stream)
            except BaseException:
                with contextlib.suppress(GpuFailed):
                    driver.end_event(event)
                raise
        return stream, event

    def _put(self, part: FromHere, stream: int) -> None:
        address = part.memory.address + part.offset
        if part.rows == 1:
            self._driver.to_device(address, part.source, part.row, stream)
        else:
            self._driver.rows_to_device(address, part.source, part.row, part.stride, part.rows, stream)

    def fetch(self, memory: DeviceMemory, offset: int, address: int, length: int, check: Callable[[], None]) -> None:
        """Copy from ``memory`` to an address of the host, behind what was put; waits for it. Raises ``GpuFailed``."""
        device = memory.device
        with self._driver.on(device):
            event = self._begin(memory, offset, length, address)
        self._see_done(device, event, check)

    def pieces(
        self, memory: DeviceMemory, offset: int, length: int, check: Callable[[], None] = wanted
    ) -> Generator[memoryview, None, None]:
        """Bytes of ``memory`` as they lie in pinned memory, piece after piece, each until the next is asked for.

        The iterator is to be closed. Raises ``GpuFailed``, and what ``check`` raises during a wait.
        """
        pool = self._cuda.leaving
        flying: list[tuple[PinnedBuffer, int, int]] = []  # with the piece's length, and its event
        ends = offset + length
        try:
            while flying or offset < ends:
                while offset < ends and len(flying) < 2:
                    count = min(PIECE_BYTES, ends - offset)
                    device = memory.device
                    buffer = pool.take_at_once(count, device) if flying else pool.take(count, device, check)
                    if buffer is None:
                        break
                    flying.append((buffer, count, 0))
                    with self._driver.on(memory.device):
                        flying[-1] = (buffer, count, self._begin(memory, offset, count, buffer.address))
                    offset += count
                buffer, count, event = flying[0]
                flying[0] = (buffer, count, 0)
                self._see_done(memory.device, event, check)
                with buffer.view[:count] as view:
                    yield view
                del flying[0]
                pool.give(buffer)
        finally:
            for buffer, _, event in flying:
                if event:
                    with contextlib.suppress(GpuFailed):
                        self._see_done(memory.device, event, wanted)
                pool.give(buffer)

    def settle(self, seconds: float) -> bool:
        """Wait until all that was put is done; false where it is not within ``seconds``. Raises ``GpuFailed``."""
        until = time.monotonic() + seconds
        return all(stream_done(self._driver, device, stream, until) for device, stream in self._all())

    def close(self) -> None:
        """Wait until nothing is copied any more, however that ends, and end the streams. Twice is harmless."""
        ended = True
        for device, stream in self._all():
            try:
                with self._driver.on(device):
                    event = recorded(self._driver, stream)
                self._see_done(device, event, wanted)
            except GpuFailed as error:
                ended = ended and lasting(error)  # copies of a GPU that is lost have ended
        with self._lock:
            streams, self._streams = self._streams, {}
            stranded, self._stranded = self._stranded, []
        for (device, _, _), stream in streams.items():
            with contextlib.suppress(GpuFailed), self._driver.on(device):
                self._driver.end_stream(stream)
        if ended:  # else nobody can tell when those buffers are free: they are not used again
            for buffer in stranded:
                self.give(buffer)

    def _strand(self, buffer: PinnedBuffer) -> None:
        """Keep a buffer of which nobody can tell when it is free, until all copies have ended."""
        with self._lock:
            self._stranded.append(buffer)

    def _begin(self, memory: DeviceMemory, offset: int, length: int, address: int) -> int:
        """Put a copy to the host into the stream; the event that tells its end. Inside ``on`` of the memory's GPU."""
        stream = self._stream(memory)
        event = self._driver.event()
        try:
            self._driver.to_host(address, memory.address + offset, length, stream)
            self._driver.record(event, stream)
        except BaseException:
            self._driver.end_event(event)
            raise
        return event

    def _see_done(self, device: int, event: int, check: Callable[[], None]) -> None:
        """Wait for an event, however long it takes. Raises ``GpuFailed``, and what ``check`` raises, which then waits.

        A copy that nobody waits for would write into what others have been given.
        """
        said: BaseException | None = None

        def ask() -> None:
            nonlocal said
            if said is None:
                try:
                    check()
                except BaseException as error:  # noqa: BLE001 - it is raised when the copy has ended
                    said = error

        while not until_done(self._driver, device, event, time.monotonic() + TELL_SECONDS, ask):
            log.warning("a copy of GPU %d has not ended for %g s; waiting for it", device, TELL_SECONDS)
        if said is not None:
            raise said

    def _stream(self, memory: DeviceMemory) -> int:
        """The stream of the memory's GPU, which waits until the memory is ready. Inside ``on`` of that GPU."""
        return self._stream_to(memory.device, memory.device, [memory])

    def _stream_to(self, device: int, other: int, memories: Iterable[DeviceMemory], *, onward: bool = False) -> int:
        """A stream of ``device``, inside ``on`` of it, which waits until memory is ready that lies on ``other``.

        With ``onward`` it is one for copies from memory of ``device``, which may go to another place of it.
        """
        with self._lock:
            stream = self._streams.get((device, other, onward))
            if stream is None:
                stream = self._streams[device, other, onward] = self._driver.stream()
            for memory in memories:
                ready = memory.ready
                if ready and (stream, ready) not in self._waited:
                    self._driver.wait(stream, ready)
                    self._waited.add((stream, ready))
            return stream

    def _all(self) -> list[tuple[int, int]]:
        with self._lock:
            return [(device, stream) for (device, _, _), stream in self._streams.items()]
