"""GPUs for tests: memory of this process that only copies reach, with CUDA's rules and none of its speed.

- A copy does nothing when it is asked for. A thread of its stream does it later: it reads then what is there then.
- A stream does one after the other, an event is done when all that was before it is, and one stream waits for another
  only where that was said. ``pause`` holds all streams.
- What goes wrong in a stream is told by every later call that concerns its GPU; what is wrong when it is asked for,
  at once: a context that is not this thread's, a handle that was ended, memory that was freed.
- Addresses of a GPU's memory are nobody's in this process.
- A GPU copies to another by itself only where the two are peers and that was opened; else by way of the host.
- Several processes have the same GPUs where they name the same directory: memory then lies in files of it, and outlives
  who has it open. What becomes of a real GPU's when its owner ends, no fake can show.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.cuda.driver import (
    ILLEGAL_ADDRESS,
    INVALID_CONTEXT,
    INVALID_HANDLE,
    INVALID_VALUE,
    LEGACY_STREAM,
    OUT_OF_MEMORY,
    PEER_UNSUPPORTED,
    Exported,
    failed,
)

WAIT_SECONDS = 60.0
"""For a stream to do what a test waits for."""

INVALID_DEVICE = "CUDA_ERROR_INVALID_DEVICE"
ALREADY_REGISTERED = "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"
NOT_REGISTERED = "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"
_files = itertools.count()
"""For the names of files with memory, which several fakes of one process may make."""

HANDLE_BYTES = 64
"""Of what memory is opened with in another process."""

_BASE = 0x7_0000_0000_0000
"""Where the memory of GPUs begins: above all addresses of a process."""


@dataclass
class _Event:
    device: int
    recording: threading.Event | None = None  # of the last ``record``


@dataclass
class _Stream:
    device: int
    tasks: deque[Callable[[], None]] = field(default_factory=deque)
    ended: bool = False


class FakeDriver:
    """Some GPUs; see ``Driver``. ``delay`` in seconds passes before each task of a stream."""

    def __init__(
        self,
        devices: int = 1,
        *,
        delay: float = 0.0,
        pinnable: int = 1 << 40,
        strangers: Collection[tuple[int, int]] = (),
        garbling: Collection[tuple[int, int]] = (),
        shared: Path | None = None,
    ) -> None:
        """``pinnable`` bytes of the host may be pinned.

        All GPUs are peers but those that are ``strangers``, either way; of those that are ``garbling`` the first can
        copy to the second, and other bytes arrive, as with some settings of a machine's PCI bridges. Of memory that is
        exported they garble what is read. ``shared`` is the directory of processes that have the same GPUs.
        """
        self.pinned: dict[int, ctypes.Array[ctypes.c_ubyte]] = {}
        self.most_pinned_bytes = 0
        self.pageable_copies = 0
        """Copies of memory that is not pinned, which CUDA would do at once, slowly."""
        self.freed_in_use = 0
        """Pinned memory that was given back while a copy was to use it: a real GPU would overwrite another's."""
        self.copied_within_host = 0
        """Bytes from GPU to GPU that went by way of the host, slowly, since that was not opened."""
        self.to_devices = 0
        """Bytes from the host to GPUs."""
        self.to_peers = 0
        """Bytes from GPU to GPU, or from one place of a GPU to another."""
        self._strangers = {frozenset(pair) for pair in strangers}
        self._garbling = set(garbling)
        self._opened: set[tuple[int, int]] = set()
        self._own: set[int] = set()  # memory that was asked for by ``memory``
        self._shared = shared
        self._files: dict[int, Path] = {}  # of memory, where processes share it
        self._opened_here: dict[int, tuple[int, int]] = {}  # memory of others: whose GPU, and the GPU that reads it
        self._devices = devices
        self._delay = delay
        self._pinnable = pinnable
        self._changed = threading.Condition(threading.RLock())
        self._paused = False
        self._steps = 0  # tasks that are done all the same
        self._closed = False
        self._numbers = itertools.count(0x1000)
        self._starts: list[int] = []  # of memory, in order
        self._memory: dict[int, tuple[int, bytearray | mmap.mmap]] = {}  # by its start: the GPU, and the bytes
        self._next = _BASE
        self._events: dict[int, _Event] = {}
        self._streams: dict[int, _Stream] = {}
        self._busy: dict[int, int] = {}  # pinned memory, and how many copies are to use it
        self._broken: dict[int, str] = {}
        self._refusals: dict[str, str] = {}
        self._here = threading.local()
        self._threads: list[threading.Thread] = []
        for device in range(devices):
            self._start(LEGACY_STREAM + (device << 8), device)

    # What tests do

    def allocate(self, data: bytes, device: int = 0) -> int:
        """Memory of a GPU, which has these bytes; its address."""
        with self._changed:
            if self._shared is None:
                return self._placed(bytearray(data), device)
            path = self._shared / f"{device}-{os.getpid()}-{next(_files)}"
            path.write_bytes(data)
            address = self._placed(_mapped(path), device)
            self._files[address] = path
            return address

    def _placed(self, room: bytearray | mmap.mmap, device: int) -> int:
        address, self._next = self._next, self._next + len(room) + 4096
        self._starts.append(address)
        self._memory[address] = (device, room)
        return address

    def free(self, address: int) -> None:
        """Free it, whoever may still want to use it."""
        with self._changed:
            del self._memory[address]
            self._starts.remove(address)
            path = self._files.pop(address, None)
            if path is not None:
                path.unlink()

    def read(self, address: int) -> bytes:
        """What lies there now, whatever is under way."""
        with self._changed:
            return bytes(self._memory[address][1][:])

    def write(self, address: int, data: bytes, stream: int = 0, device: int = 0) -> None:
        """A kernel that writes to a GPU's memory: in a stream, or at once."""

        def work() -> None:
            room, at = self._at(address, len(data))
            room[at : at + len(data)] = data

        with self._changed:
            self._put(stream, device, work) if stream else work()

    def new_stream(self, device: int = 0) -> int:
        """A stream of the test's own."""
        with self.on(device):
            return self.stream()

    def pause(self) -> None:
        """Let no stream go on."""
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Let them go on."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def step(self, tasks: int) -> None:
        """Let so many tasks be done while streams are paused: a copy is one, and a record."""
        with self._changed:
            self._steps += tasks
            self._changed.notify_all()

    def refuse(self, call: str, code: str = OUT_OF_MEMORY) -> None:
        """Let the next such call fail, by its name in ``Driver``."""
        self._refusals[call] = code

    def break_down(self, device: int = 0, code: str = ILLEGAL_ADDRESS) -> None:
        """Let every later call that concerns this GPU fail, as after a kernel that read where nothing is."""
        with self._changed:
            self._broken[device] = code
            self._changed.notify_all()

    @property
    def open(self) -> dict[str, int]:
        """What was made and not ended; the default streams, and the test's own, count as streams."""
        with self._changed:
            return {
                "streams": len(self._streams) - self._devices,
                "events": len(self._events),
                "memory": len(self._own),
                "opened": len(self._opened_here),
                "pinned": sum(len(each) for each in self.pinned.values()),
            }

    def close(self) -> None:
        """End its threads."""
        with self._changed:
            self._closed = True
            self._paused = False
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)

    # What CUDA does

    def count(self) -> int:
        """See ``Driver.count``."""
        return self._devices

    def pci_address(self, device: int) -> str:
        """See ``Driver.pci_address``."""
        return f"0000:{0x10 + device:02x}:00.0"

    def reaches(self, device: int, other: int) -> bool:
        """See ``Driver.reaches``. A GPU is no peer of its own."""
        for each in (device, other):
            if not 0 <= each < self._devices:
                raise failed("cuDeviceGet", each, INVALID_DEVICE, "invalid device ordinal")
        return device != other and frozenset((device, other)) not in self._strangers

    def device_of(self, address: int) -> int:
        """See ``Driver.device_of``."""
        with self._changed:
            index = bisect_right(self._starts, address) - 1
            if index >= 0:
                device, room = self._memory[self._starts[index]]
                if address < self._starts[index] + len(room):
                    return device
        raise failed("cuPointerGetAttribute", 0, INVALID_VALUE, "invalid argument")

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        """See ``Driver.on``."""
        if not 0 <= device < self._devices:
            raise failed("cuDeviceGet", device, INVALID_DEVICE, "invalid device ordinal")
        before = self._device
        self._here.device = device
        try:
            yield
        finally:
            self._here.device = before

    def pin(self, length: int) -> int:
        """See ``Driver.pin``."""
        self._check("pin", "cuMemHostAlloc")
        with self._changed:
            now = sum(len(each) for each in self.pinned.values()) + length
            if now > self._pinnable:
                raise failed("cuMemHostAlloc", self._current(), OUT_OF_MEMORY, "out of memory")
            self.most_pinned_bytes = max(self.most_pinned_bytes, now)
            made = (ctypes.c_ubyte * length)()
            address = ctypes.addressof(made)
            self.pinned[address] = made
            return address

    def unpin(self, address: int) -> None:
        """See ``Driver.unpin``."""
        self._check("unpin", "cuMemFreeHost")
        with self._changed:
            if address not in self.pinned:
                raise failed("cuMemFreeHost", self._current(), INVALID_VALUE, "invalid argument")
            self.freed_in_use += bool(self._busy.get(address))
            del self.pinned[address]

    def register(self, address: int, length: int) -> None:
        """See ``Driver.register``."""
        self._check("register", "cuMemHostRegister")
        with self._changed:
            if any(at < address + length and address < at + len(each) for at, each in self.pinned.items()):
                raise failed(
                    "cuMemHostRegister", self._current(), ALREADY_REGISTERED, "part or all of it is registered"
                )
            self.pinned[address] = (ctypes.c_ubyte * length).from_address(address)

    def unregister(self, address: int) -> None:
        """See ``Driver.unregister``."""
        self._check("unregister", "cuMemHostUnregister")
        with self._changed:
            if self.pinned.pop(address, None) is None:
                raise failed("cuMemHostUnregister", self._current(), NOT_REGISTERED, "not registered")
            self.freed_in_use += bool(self._busy.get(address))

    def stream(self) -> int:
        """See ``Driver.stream``."""
        self._check("stream", "cuStreamCreate")
        number = next(self._numbers)
        self._start(number, self._current())
        return number

    def end_stream(self, stream: int) -> None:
        """See ``Driver.end_stream``."""
        self._check("end_stream", "cuStreamDestroy")
        with self._changed:
            self._stream(stream, "cuStreamDestroy").ended = True
            del self._streams[stream]
            self._changed.notify_all()

    def to_device(self, address: int, source: int, length: int, stream: int) -> None:
        """See ``Driver.to_device``."""

        def work() -> None:
            room, at = self._at(address, length)
            room[at : at + length] = ctypes.string_at(source, length)
            self.to_devices += length

        self._copy("to_device", "cuMemcpyHtoDAsync", address, source, length, stream, work)

    def rows_to_device(self, address: int, source: int, row: int, stride: int, rows: int, stream: int) -> None:
        """See ``Driver.rows_to_device``."""
        length = row * rows

        def work() -> None:
            room, at = self._at(address, length)
            data = b"".join(ctypes.string_at(source + number * stride, row) for number in range(rows))
            room[at : at + length] = data
            self.to_devices += length

        self._copy("to_device", "cuMemcpy2DAsync", address, source, length, stream, work)

    def to_host(self, target: int, address: int, length: int, stream: int) -> None:
        """See ``Driver.to_host``."""

        def work() -> None:
            room, at = self._at(address, length)
            ctypes.memmove(target, bytes(room[at : at + length]), length)

        self._copy("to_host", "cuMemcpyDtoHAsync", address, target, length, stream, work)

    def memory(self, length: int) -> int:
        """See ``Driver.memory``."""
        self._check("memory", "cuMemAlloc")
        address = self.allocate(bytes(length), self._current())
        self._own.add(address)
        return address

    def end_memory(self, address: int) -> None:
        """See ``Driver.end_memory``."""
        self._check("end_memory", "cuMemFree")
        if address not in self._own:
            raise failed("cuMemFree", self._current(), INVALID_VALUE, "invalid argument")
        self._own.discard(address)
        self.free(address)

    def open_peer(self, other: int) -> None:
        """See ``Driver.open_peer``."""
        self._check("open_peer", "cuCtxEnablePeerAccess")
        if not self.reaches(self._current(), other):
            raise failed("cuCtxEnablePeerAccess", self._current(), PEER_UNSUPPORTED, "peer access is not supported")
        self._opened.add((self._current(), other))

    def to_peer(self, address: int, source: int, length: int, stream: int, device: int) -> None:
        """See ``Driver.to_peer``."""
        self._check("to_peer", "cuMemcpyPeerAsync")
        here = self._current()

        def work() -> None:
            room, at = self._at(source, length)
            data = bytes(room[at : at + length])
            target, to = self._at(address, length)
            target[to : to + length] = bytes(length) if pair in self._garbling else data
            self.to_peers += length

        with self._changed:
            try:
                self._at(address, length)
                self._at(source, length)
                right = (self.device_of(source), self.device_of(address)) == (here, device)
                pair = self._opened_here.get(self._starts[bisect_right(self._starts, source) - 1], (here, device))
            except KeyError:
                right = False
            if not right:
                raise failed("cuMemcpyPeerAsync", here, INVALID_VALUE, "invalid argument")
            if device != here and (here, device) not in self._opened:
                self.copied_within_host += length
            self._put(stream, here, work)

    def export(self, address: int) -> Exported:
        """See ``Driver.export``."""
        self._check("export", "cuIpcGetMemHandle")
        with self._changed:
            index = bisect_right(self._starts, address) - 1
            start = self._starts[index] if index >= 0 else 0
            path = self._files.get(start)
            if path is None:
                raise failed("cuIpcGetMemHandle", self._current(), INVALID_VALUE, "invalid argument")
            handle = path.name.encode().ljust(HANDLE_BYTES, b"\0")
            return Exported(handle, address - start)

    def open_exported(self, handle: bytes) -> int:
        """See ``Driver.open_exported``."""
        self._check("open_exported", "cuIpcOpenMemHandle")
        here, name = self._current(), handle.rstrip(b"\0").decode()
        theirs = int(name.partition("-")[0])
        if theirs != here and not self.reaches(here, theirs):
            raise failed("cuIpcOpenMemHandle", here, PEER_UNSUPPORTED, "peer access is not supported")
        with self._changed:
            try:
                room = _mapped((self._shared or Path()) / name)
            except OSError:
                raise failed("cuIpcOpenMemHandle", here, INVALID_VALUE, "invalid argument") from None
            address = self._placed(room, here)
            self._opened_here[address] = (theirs, here)
            return address

    def close_exported(self, address: int) -> None:
        """See ``Driver.close_exported``."""
        self._check("close_exported", "cuIpcCloseMemHandle")
        with self._changed:
            if self._opened_here.pop(address, None) is None:
                raise failed("cuIpcCloseMemHandle", self._current(), INVALID_VALUE, "invalid argument")
            self.free(address)

    def event(self) -> int:
        """See ``Driver.event``."""
        self._check("event", "cuEventCreate")
        number = next(self._numbers)
        with self._changed:
            self._events[number] = _Event(self._current())
        return number

    def end_event(self, event: int) -> None:
        """See ``Driver.end_event``."""
        self._check("end_event", "cuEventDestroy")
        with self._changed:
            self._event(event, "cuEventDestroy")
            del self._events[event]

    def record(self, event: int, stream: int) -> None:
        """See ``Driver.record``."""
        self._check("record", "cuEventRecord")
        with self._changed:
            recording = self._event(event, "cuEventRecord").recording = threading.Event()
            self._put(stream, self._current(), recording.set)

    def done(self, event: int) -> bool:
        """See ``Driver.done``."""
        self._check("done", "cuEventQuery")
        with self._changed:
            recording = self._event(event, "cuEventQuery").recording
            return recording is None or recording.is_set()

    def wait(self, stream: int, event: int) -> None:
        """See ``Driver.wait``."""
        self._check("wait", "cuStreamWaitEvent")
        with self._changed:
            found = self._events.get(event)  # of any GPU
            if found is None:
                raise failed("cuStreamWaitEvent", self._current(), INVALID_HANDLE, "invalid resource handle")
            recording = found.recording
            if recording is not None:
                self._put(stream, self._current(), lambda: _see(recording.wait(WAIT_SECONDS)))

    # How

    @property
    def _device(self) -> int | None:
        found: int | None = getattr(self._here, "device", None)
        return found

    def _current(self) -> int:
        device = self._device
        if device is None:
            raise failed("a call", 0, INVALID_CONTEXT, "invalid device context")
        return device

    def _check(self, name: str, call: str) -> None:
        """Raise what is wrong before a call has been looked at."""
        device = self._current()
        code = self._refusals.pop(name, "") or self._broken.get(device, "")
        if code:
            raise failed(call, device, code, "as the test wants it")

    def _at(self, address: int, length: int) -> tuple[bytearray | mmap.mmap, int]:
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            start = self._starts[index]
            room = self._memory[start][1]
            if address + length <= start + len(room):
                return room, address - start
        raise KeyError(address)

    def _stream(self, stream: int, call: str) -> _Stream:
        device = self._current()
        number = stream + (device << 8) if stream == LEGACY_STREAM else stream
        found = self._streams.get(number)
        if found is None or found.device != device:
            raise failed(call, device, INVALID_HANDLE, "invalid resource handle")
        return found

    def _event(self, event: int, call: str) -> _Event:
        found = self._events.get(event)
        if found is None or found.device != self._current():
            raise failed(call, self._current(), INVALID_HANDLE, "invalid resource handle")
        return found

    def _put(self, stream: int, device: int, work: Callable[[], None]) -> None:
        with self.on(device):
            self._stream(stream, "a call").tasks.append(work)
        self._changed.notify_all()

    def _copy(
        self, name: str, call: str, address: int, host: int, length: int, stream: int, work: Callable[[], None]
    ) -> None:
        self._check(name, call)
        with self._changed:
            try:
                self._at(address, length)
            except KeyError:
                raise failed(call, self._current(), INVALID_VALUE, "invalid argument") from None
            start = next((at for at, each in self.pinned.items() if at <= host < at + len(each)), None)
            if start is None:
                self.pageable_copies += 1
                done = threading.Event()
                self._put(stream, self._current(), work)
                self._put(stream, self._current(), done.set)
            else:
                self._busy[start] = self._busy.get(start, 0) + 1
                self._put(stream, self._current(), lambda: self._with_pinned(start, work))
                return
        _see(done.wait(WAIT_SECONDS))

    def _with_pinned(self, start: int, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._busy[start] -= 1

    def _start(self, number: int, device: int) -> None:
        stream = _Stream(device)
        with self._changed:
            self._streams[number] = stream
        thread = threading.Thread(target=self._serve, args=(stream,), name=f"fake-stream-{number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, stream: _Stream) -> None:
        while True:
            with self._changed:
                while (self._paused and not self._steps) or not stream.tasks:
                    if self._closed or (stream.ended and not stream.tasks):
                        return
                    self._changed.wait(WAIT_SECONDS)
                if self._paused:
                    self._steps -= 1
                task = stream.tasks.popleft()
            if self._delay:
                time.sleep(self._delay)
            try:
                task()
            except KeyError:  # the memory was freed meanwhile
                self.break_down(stream.device)


def _mapped(path: Path) -> mmap.mmap:
    """A file's bytes, shared by all who map it. Raises ``OSError``."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def _see(came: bool) -> None:  # noqa: FBT001 - what a wait said
    if not came:
        raise TimeoutError("a stream of the fake stands still")
