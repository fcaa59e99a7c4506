"""What every destination does, wherever it puts the bytes: files, memory, and a bounded ring that is read in order."""

from __future__ import annotations

import mmap
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.memory.file_spans import FileSpan
from engine.memory.region import Region
from p2pstore.errors import Interrupted
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.destination import ABORT_SECONDS, Destination, Mismatch
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.memory_destination import MemoryDestination
from p2pstore.pull.writers import Writers
from tests.p2pstore.samples import KIB, content, manifest_of, read_tree

CHUNK = 4 * KIB
FILES = {"a": content(3 * CHUNK + 1), "b/c": content(CHUNK, 2), "empty": b"", "z": content(2 * CHUNK + 7, 3)}
MANIFEST = manifest_of(FILES, CHUNK)
WHOLE = b"".join(FILES[path] for path in sorted(FILES))
ALL = range(MANIFEST.chunks)
WAIT = 60.0


class Ring:
    """A destination that holds ``ROOM`` bytes: a consumer reads the object from its start, and makes room so.

    This is what stands between a pull and a reader of a stream, an HTTP response or a copy to a GPU for example.
    """

    ROOM = 2 * CHUNK

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.verified = Bitmap(manifest.chunks)
        self.read = bytearray()
        self.new_hasher = hasher(manifest.hash)
        self.writers = Writers(self._let_go)
        self.changed = threading.Condition()
        self._memory = bytearray(self.ROOM)
        self._ready: dict[int, int] = {}  # from a chunk's number to its length
        self._closed = False
        self._reader = threading.Thread(target=self._consume, daemon=True)
        self._reader.start()

    def sink(self, run: range, scratch: memoryview) -> RingSink:
        return RingSink(self, run, scratch)

    def place(self, run: range) -> Region | None:
        return None

    def keep(self, run: range) -> None:
        """What was read is gone: there is nothing to remember."""

    def finish(self) -> tuple[FileSpan, ...]:
        assert self.writers.stop(WAIT)
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.read) == self.manifest.size, WAIT)
        self.writers.end(WAIT)
        return ()

    def abort(self, timeout: float = ABORT_SECONDS) -> bool:
        self.writers.stop(0)
        with self.changed:
            self.changed.notify_all()  # whoever waits for room waits in vain
        return self.writers.end(timeout)

    def room_for(self, offset: int, length: int) -> None:
        """Wait until the object's bytes there may be put into the ring. Raises ``Interrupted``."""
        with self.changed:
            while offset + length > len(self.read) + self.ROOM:
                self.writers.check()
                assert self.changed.wait(WAIT)

    def put(self, number: int, data: bytes) -> None:
        start = self.manifest.chunk(number).offset
        for at, byte in enumerate(data, start):
            self._memory[at % self.ROOM] = byte
        with self.changed:
            self._ready[number] = len(data)
            self.changed.notify_all()

    def _consume(self) -> None:
        for chunk in self.manifest.all_chunks():
            with self.changed:
                while chunk.number not in self._ready:
                    if self._closed or not self.changed.wait(WAIT):
                        return
                self.read += bytes(
                    self._memory[at % self.ROOM] for at in range(chunk.offset, chunk.offset + chunk.length)
                )
                self.changed.notify_all()

    def _let_go(self) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()


class RingSink:
    """Verifies a chunk in a buffer of its own before the reader may see it."""

    def __init__(self, ring: Ring, run: range, scratch: memoryview) -> None:
        self.kept = 0
        self._ring = ring
        self._run = run
        self._scratch = scratch
        self._chunk = bytearray()
        ring.writers.enter()
        self._open = True

    def buffer(self, remaining: int) -> memoryview:
        self._ring.writers.check()
        chunk = self._ring.manifest.chunk(self._run[self.kept])
        self._ring.room_for(chunk.offset, chunk.length)
        return self._scratch[: min(len(self._scratch), chunk.length - len(self._chunk), remaining)]

    def filled(self, count: int) -> None:
        chunk = self._ring.manifest.chunk(self._run[self.kept])
        self._chunk += self._scratch[:count]
        if len(self._chunk) == chunk.length:
            hashed = self._ring.new_hasher()
            hashed.update(memoryview(self._chunk))
            if hashed.digest() != chunk.digest:
                raise Mismatch(chunk.number)
            self._ring.put(chunk.number, self._chunk)
            self._chunk = bytearray()
            self.kept += 1

    def close(self) -> None:
        if self._open:
            self._open = False
            self._ring.writers.leave()


class Kind(ABC):
    """One kind of destination, and how to read what was put there."""

    ordered = False
    """Whether chunks must come in the order of the object."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.destination: Destination = self.make()

    @abstractmethod
    def make(self) -> Destination: ...

    @abstractmethod
    def found(self) -> bytes: ...


class Files(Kind):
    def make(self) -> Destination:
        return FileDestination(self.directory / "dest", MANIFEST, "n")

    def found(self) -> bytes:
        tree = read_tree(self.directory / "dest")
        return b"".join(tree[path] for path in sorted(tree))


class Memory(Kind):
    def make(self) -> Destination:
        self.maps = {path: mmap.mmap(-1, max(1, len(data))) for path, data in FILES.items()}
        buffers = {path: memoryview(each)[: len(FILES[path])] for path, each in self.maps.items()}
        try:
            return MemoryDestination(MANIFEST, buffers)
        finally:
            for view in buffers.values():
                view.release()

    def found(self) -> bytes:
        return b"".join(self.maps[path][: len(FILES[path])] for path in sorted(FILES))


class Stream(Kind):
    ordered = True

    def make(self) -> Destination:
        self.ring = Ring(MANIFEST)
        return self.ring

    def found(self) -> bytes:
        return bytes(self.ring.read)


@pytest.fixture(params=[Files, Memory, Stream])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    made: Kind = request.param(tmp_path)
    yield made
    assert made.destination.abort(WAIT)


def bytes_of(run: range) -> bytes:
    first, last = MANIFEST.chunk(run[0]), MANIFEST.chunk(run[-1])
    return WHOLE[first.offset : last.offset + last.length]


def bring(destination: Destination, run: range, data: bytes | None = None, step: int = 1 << 20) -> int:
    """Bring a run as a pull's thread does, at most ``step`` bytes at a time; how many chunks were right."""
    data = bytes_of(run) if data is None else data
    sink = destination.sink(run, memoryview(bytearray(1000)))
    done = 0
    try:
        while done < len(data):
            view = sink.buffer(len(data) - done)
            assert 0 < len(view) <= len(data) - done
            count = min(len(view), step)
            view[:count] = data[done : done + count]
            sink.filled(count)
            done += count
    finally:
        sink.close()
        destination.verified.update(run[: sink.kept])
        if sink.kept:
            destination.keep(run[: sink.kept])
    return sink.kept


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


@pytest.mark.parametrize("step", [7, 1 << 20])
def test_a_run_across_files(kind: Kind, step: int) -> None:
    destination = kind.destination
    assert destination.manifest is MANIFEST
    assert not list(destination.verified)
    assert bring(destination, ALL, step=step) == len(ALL)
    assert destination.verified.full
    destination.finish()
    assert kind.found() == WHOLE


def test_chunk_by_chunk(kind: Kind) -> None:
    order = list(ALL) if kind.ordered else list(reversed(ALL))
    for number in order:
        assert bring(kind.destination, range(number, number + 1)) == 1
    kind.destination.finish()
    assert kind.found() == WHOLE


def test_by_several_threads(kind: Kind) -> None:
    runs = [range(n, min(n + 2, ALL.stop)) for n in range(0, len(ALL), 2)]
    taken = iter(runs)
    lock = threading.Lock()
    kept: list[int] = []

    def work() -> None:
        while True:
            with lock:
                run = next(taken, None)
            if run is None:
                return
            kept.append(bring(kind.destination, run, step=100))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sum(kept) == len(ALL)
    kind.destination.finish()
    assert kind.found() == WHOLE


@pytest.mark.parametrize("wrong", [0, 2])
def test_the_first_wrong_chunk_ends_a_sink_and_those_before_it_count(kind: Kind, wrong: int) -> None:
    destination = kind.destination
    bad = flipped(WHOLE, MANIFEST.chunk(wrong).offset)
    with pytest.raises(Mismatch) as caught:
        bring(destination, ALL, bad)
    assert caught.value.chunk == wrong
    assert list(destination.verified) == list(range(wrong))
    assert bring(destination, range(wrong, ALL.stop)) == len(ALL) - wrong
    destination.finish()
    assert kind.found() == WHOLE


def test_a_sink_that_is_broken_off_has_kept_what_was_whole(kind: Kind) -> None:
    assert bring(kind.destination, ALL, WHOLE[: CHUNK + 5]) == 1
    assert bring(kind.destination, range(1, ALL.stop)) == len(ALL) - 1
    kind.destination.finish()
    assert kind.found() == WHOLE


def test_a_place_is_where_the_sinks_buffers_lie(kind: Kind) -> None:
    destination = kind.destination
    for number in ALL:
        run = range(number, number + 1)
        place = destination.place(run)
        if place is not None:
            view = place.view()
            assert view is not None
            view[:] = bytes_of(run)  # as a device does, before the sink is asked
            sink = destination.sink(run, memoryview(bytearray(1)))
            room = sink.buffer(len(view))
            assert len(room) == len(view)
            sink.filled(len(room))
            assert sink.kept == 1
            sink.close()
            place.close()
        else:
            assert bring(destination, run) == 1
    assert destination.place(ALL) is None  # it is several files
    destination.finish()
    assert kind.found() == WHOLE


@pytest.mark.parametrize("how", ["finish", "abort"])
def test_nothing_is_taken_after_the_end(kind: Kind, how: str) -> None:
    destination = kind.destination
    bring(destination, ALL)
    if how == "finish":
        destination.finish()
        assert kind.found() == WHOLE
    assert destination.abort()
    assert destination.abort()
    with pytest.raises(Interrupted):
        destination.sink(range(1), memoryview(bytearray(CHUNK)))
    place: Callable[[range], Region | None] = destination.place
    if isinstance(destination, MemoryDestination):
        with pytest.raises(Interrupted):
            place(range(1))
    destination.keep(range(1))  # of a thread that comes late: harmless


def test_an_abort_breaks_off_the_sinks_and_waits_for_them(kind: Kind) -> None:
    """D7, D14: who has aborted may rely on it that nobody writes any more, and on nothing less."""
    destination = kind.destination
    sink = destination.sink(ALL, memoryview(bytearray(100)))
    room = sink.buffer(len(WHOLE))
    assert not destination.abort(0)  # somebody is at it
    count = min(len(room), 10)
    room[:count] = WHOLE[:count]
    sink.filled(count)
    with pytest.raises(Interrupted):
        sink.buffer(len(WHOLE) - count)
    sink.close()
    sink.close()
    assert destination.abort(WAIT)


def test_an_abort_is_over_when_the_last_sink_is(kind: Kind) -> None:
    sink = kind.destination.sink(ALL, memoryview(bytearray(100)))
    sink.buffer(10)
    found: list[bool] = []
    aborting = threading.Thread(target=lambda: found.append(kind.destination.abort(WAIT)))
    aborting.start()
    sink.close()
    aborting.join(WAIT)
    assert found == [True]


def test_what_waits_for_room_hears_of_an_abort(tmp_path: Path) -> None:
    kind = Stream(tmp_path)
    last = range(ALL.stop - 1, ALL.stop)
    fault: list[BaseException] = []

    def wait() -> None:
        try:
            bring(kind.destination, last)
        except Interrupted as error:
            fault.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert kind.destination.abort(WAIT)
    waiting.join(WAIT)
    assert len(fault) == 1


class TestMemory:
    """What only holds for memory: it is the caller's again once the destination has ended."""

    def test_nothing_holds_it_after_the_end(self, tmp_path: Path) -> None:
        kind = Memory(tmp_path)
        place = kind.destination.place(range(2))
        assert place is not None
        sink = kind.destination.sink(range(2), memoryview(b""))
        room = sink.buffer(100)
        assert not kind.destination.abort(0)
        with pytest.raises(BufferError):
            kind.maps["a"].close()  # a device or a thread could still write there
        place.close()
        sink.close()
        assert kind.destination.abort(0)
        for memory in kind.maps.values():
            memory.close()
        with pytest.raises(ValueError, match="released"):
            room[0] = 1
