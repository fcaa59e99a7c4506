"""Memory that was lent to an engine is its owner's again when the call is over, or when it is unregistered."""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config.settings import EngineSettings
from engine.engine import File, Opcode, TransferEngine, TransferRequest, TransferState
from engine.errors import MooncakeError, PeerStalled, RangeRefused, StorageError, UsageError
from engine.memory.buffers import MemoryBuffer
from tests.p2pstore.samples import MIB, content

SIZE = 3 * MIB
DATA = content(SIZE, 11)
WAIT = 60.0
Raised = Callable[[type[BaseException]], contextlib.AbstractContextManager[None]]
SETTINGS = EngineSettings(retries=1, connect_timeout=WAIT, stall_timeout=WAIT)


@pytest.fixture
def engines() -> Iterator[tuple[TransferEngine, TransferEngine]]:
    with TransferEngine(settings=SETTINGS) as ours, TransferEngine(settings=SETTINGS) as theirs:
        yield ours, theirs


@pytest.fixture
def readonly(tmp_path: Path) -> Iterator[mmap.mmap]:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as made:
        yield made


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, SIZE) as made:
        yield made


@pytest.fixture
def raised() -> Iterator[Raised]:
    """``pytest.raises`` that keeps the errors, and with them the frames that they came through."""
    kept: list[pytest.ExceptionInfo[BaseException]] = []

    @contextlib.contextmanager
    def expect(kind: type[BaseException]) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        kept.append(caught)

    yield expect
    kept.clear()


class Slow(MemoryBuffer):
    """Memory that can be read once the gate is opened."""

    def __init__(self, data: bytes) -> None:
        super().__init__("slow", data)
        self.asked, self.gate = threading.Event(), threading.Event()

    def ready(self, offset: int, length: int) -> bool:
        self.asked.set()
        return self.gate.wait(WAIT)


def test_after_reads_and_writes(engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap) -> None:
    ours, theirs = engines
    there = theirs.register_memory(bytearray(DATA), writable=True)
    segment = ours.open_segment(theirs.segment_name)
    for length in (100, SIZE):  # one slice, and several lanes
        ours.read(memory, segment, there.address, length)
        assert memory[:length] == DATA[:length]
        ours.write(memory, segment, there.address, length)
    memory.close()


def test_after_a_batch(engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap) -> None:
    ours, theirs = engines
    there = theirs.register_memory(DATA)
    segment = ours.open_segment(theirs.segment_name)
    half = SIZE // 2
    batch = ours.submit_transfer(
        TransferRequest(Opcode.READ, memory, segment, there.address + at, half, at) for at in (0, half)
    )
    assert batch.wait(WAIT)
    assert memory[:] == DATA
    memory.close()


@pytest.mark.parametrize("length", [100, SIZE])
def test_after_a_refusal(
    engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap, length: int, raised: Raised
) -> None:
    ours, theirs = engines
    there = theirs.register_memory(DATA)
    segment = ours.open_segment(theirs.segment_name)
    ours.read(bytearray(1), segment, there.address, 1)
    theirs.unregister_memory(there)
    with raised(RangeRefused):
        ours.read(memory, segment, there.address, length)
    memory.close()


def test_after_misuse(
    engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap, readonly: mmap.mmap, raised: Raised
) -> None:
    ours, theirs = engines
    there = theirs.register_memory(DATA)
    segment = ours.open_segment(theirs.segment_name)
    with raised(UsageError):
        ours.read(readonly, segment, there.address)
    with raised(UsageError):
        ours.read(memory, segment, there.address, SIZE + 1)
    with raised(UsageError):
        ours.submit_transfer(
            [
                TransferRequest(Opcode.READ, memory, segment, there.address),
                TransferRequest(Opcode.READ, readonly, segment, there.address),
            ]
        )
    with raised(UsageError):
        ours.register_memory(readonly, writable=True)
    memory.close()
    readonly.close()


def test_after_the_peer_went_away(
    engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap, raised: Raised
) -> None:
    ours, theirs = engines
    there = theirs.register_memory(DATA)
    segment = ours.open_segment(theirs.segment_name)
    ours.read(bytearray(1), segment, there.address, 1)
    theirs.close()
    with raised(MooncakeError):
        ours.read(memory, segment, there.address)
    memory.close()


def test_after_unregistering(
    engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap, readonly: mmap.mmap
) -> None:
    ours, theirs = engines
    made = [theirs.register_memory(memory, writable=True), theirs.register_memory(readonly)]
    segment = ours.open_segment(theirs.segment_name)
    ours.write(DATA, segment, made[0].address)
    ours.read(bytearray(SIZE), segment, made[1].address)
    assert theirs.unregister_memory_batch(made)
    memory.close()
    readonly.close()


def test_after_registering_failed(
    engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap, raised: Raised
) -> None:
    ours, _ = engines
    with raised(StorageError):
        ours.register_memory_batch([memory, File("/nonexistent")])
    memory.close()


def test_after_the_engine_was_closed(memory: mmap.mmap) -> None:
    engine = TransferEngine(settings=SETTINGS)
    engine.register_memory(memory)
    engine.close()
    memory.close()


def test_after_a_timeout(engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap, raised: Raised) -> None:
    ours, theirs = engines
    slow = Slow(DATA)
    there = theirs.register_memory(slow)
    segment = ours.open_segment(theirs.segment_name)
    with raised(PeerStalled):
        ours.read(memory, segment, there.address, timeout=0.2)
    memory.close()
    slow.gate.set()


def test_after_a_cancel(engines: tuple[TransferEngine, TransferEngine], memory: mmap.mmap) -> None:
    ours, theirs = engines
    slow = Slow(DATA)
    there = theirs.register_memory(slow)
    segment = ours.open_segment(theirs.segment_name)
    batch = ours.submit_transfer([TransferRequest(Opcode.READ, memory, segment, there.address)])
    assert slow.asked.wait(WAIT)
    batch.cancel()
    assert batch.wait(WAIT)
    assert batch.status(0).state is TransferState.CANCELLED
    memory.close()
    slow.gate.set()


def test_unregistering_waits_for_who_reads(engines: tuple[TransferEngine, TransferEngine]) -> None:
    ours, theirs = engines
    memory = mmap.mmap(-1, SIZE)
    slow = Slow(memory)  # type: ignore[arg-type]
    there = theirs.register_memory(slow)
    segment = ours.open_segment(theirs.segment_name)
    batch = ours.submit_transfer([TransferRequest(Opcode.READ, bytearray(SIZE), segment, there.address)])
    assert slow.asked.wait(WAIT)
    assert not theirs.unregister_memory(there, timeout=0)
    with pytest.raises(BufferError):
        memory.close()
    slow.gate.set()
    assert batch.wait(WAIT)
    for _ in range(int(WAIT / 0.01)):  # the server has sent the last byte, and lets go a moment later
        with contextlib.suppress(BufferError):
            memory.close()
            break
        time.sleep(0.01)
    assert memory.closed
