"""How fast threads of one Python process copy files within a tmpfs, by the order of what they copy, and how they write.

::

    python benchmarks/ways_of_writing.py [--gib 8] [--rounds 2] [--threads 8,12,16] [--directory /dev/shm] [--json]

Eight files are read, hashed with xxh3_128 and written, 4 MiB to a thread at a time, in pieces of 1 MiB: it is what a
local get does, in the fewest lines. ``cp`` of all eight at once is beside it. The orders:

- ``apart``: chunks of the files in turn, so that threads hardly meet in one
- ``by chance``: as a get without regard to files would
- ``one after the other``: all threads at one file

And into a single file: by ``pwrite``, whose lock lets one in at a time, and into a mapping that is populated ahead, by
process_vm_readv of this very process, which reports a file that was cut short as an error (who writes there by itself
is killed: SIGBUS). Told are medians of GB/s, and of processor seconds for a GB.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
from counts import as_amount, as_count, as_counts

FILES = 8
CHUNK = 4 << 20
PIECE = 1 << 20
BLOCK = 16 << 20
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE
CP_TIMEOUT = 300.0
CHUNK_TIMEOUT = 60.0
"""For a thread to end the chunk that it is at."""


class Vector(ctypes.Structure):
    """C's ``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
LIBC.process_vm_readv.argtypes = (
    ctypes.c_int, ctypes.POINTER(Vector), ctypes.c_ulong, ctypes.POINTER(Vector), ctypes.c_ulong, ctypes.c_ulong
)  # fmt: skip
LIBC.process_vm_readv.restype = ctypes.c_ssize_t

Chunk = tuple[int, int]
"""The number of a file that is written, and where in it."""


class Way(NamedTuple):
    """What is compared: so many files written, in an order, by ``pwrite`` or into a mapping."""

    name: str
    files: int
    order: Callable[[list[Chunk]], list[Chunk]]
    mapped: bool = False


def by_chance(chunks: list[Chunk]) -> list[Chunk]:
    return random.sample(chunks, len(chunks))


WAYS = (
    Way("eight files, apart", FILES, lambda chunks: chunks),
    Way("eight files, by chance", FILES, by_chance),
    Way("eight files, one after the other", FILES, sorted),
    Way("one file", 1, lambda chunks: chunks),
    Way("one file, into a mapping", 1, lambda chunks: chunks, mapped=True),
)


def copy_by_kernel(address: int, piece: memoryview) -> None:
    """Copy a piece to an address of this process. Raises ``OSError``, also where nothing lies there any more."""
    count = len(piece)
    ours, theirs = Vector(address, count), Vector(ctypes.addressof(ctypes.c_char.from_buffer(piece)), count)
    if LIBC.process_vm_readv(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) != count:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def possible() -> list[Way]:
    """The ways that this system lets a process take; of the others it is said why."""
    room = bytearray(1)
    try:
        copy_by_kernel(ctypes.addressof(ctypes.c_char.from_buffer(room)), memoryview(bytearray(1)))
    except OSError as error:
        print(f"left out, as process_vm_readv is refused here ({error}): into a mapping", file=sys.stderr)
        return [way for way in WAYS if not way.mapped]
    return list(WAYS)


class Copying:
    """One copy of all, by some threads."""

    def __init__(self, directory: Path, sources: list[Path], size: int, way: Way) -> None:
        self._each = size // FILES
        self._per_file = size // way.files
        self._mapped = way.mapped
        self._paths = [directory / f"copy-{number}" for number in range(way.files)]
        self._sources = [os.open(path, os.O_RDONLY) for path in sources]
        self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) for path in self._paths]
        for file in self._files:
            os.ftruncate(file, self._per_file)
        self._maps = [mmap.mmap(file, self._per_file) for file in self._files] if way.mapped else []
        self._addresses = [ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in self._maps]
        chunks = [(file, at) for at in range(0, self._per_file, CHUNK) for file in range(way.files)]
        self._left: Iterator[Chunk] = iter(way.order(chunks))
        self._lock = threading.Lock()
        self.faults: list[BaseException] = []

    def work(self) -> None:
        """What each thread does."""
        try:
            buffer = bytearray(b"\1") * PIECE
            while (chunk := self._next()) is not None:
                self._copy(*chunk, memoryview(buffer))
        except BaseException as fault:  # noqa: BLE001 - told by who waits for the threads
            self.faults.append(fault)

    def _next(self) -> Chunk | None:
        with self._lock:
            return next(self._left, None)

    def _copy(self, file: int, at: int, piece: memoryview) -> None:
        hashed = xxhash.xxh3_128()
        if self._mapped:
            LIBC.madvise(self._addresses[file] + at, CHUNK, POPULATE_WRITE)
        for start in range(at, at + CHUNK, PIECE):
            source, offset = divmod(file * self._per_file + start, self._each)
            os.preadv(self._sources[source], [piece], offset)
            hashed.update(piece)
            if self._mapped:
                copy_by_kernel(self._addresses[file] + start, piece)
            else:
                os.pwrite(self._files[file], piece, start)

    def same(self, sources: list[Path]) -> bool:
        """Whether what was written is what was read."""
        return _digest(self._paths) == _digest(sources)

    def stop(self, workers: list[threading.Thread]) -> None:
        """Let nobody begin another chunk, and wait for those who are at one: they write to what is closed next."""
        with self._lock:
            self._left = iter(())
        for worker in workers:
            if worker.ident is not None:
                worker.join(CHUNK_TIMEOUT)

    def close(self) -> None:
        """Remove what was written."""
        self._maps.clear()
        for descriptor in self._sources + self._files:
            os.close(descriptor)
        for path in self._paths:
            path.unlink()


def _digest(paths: list[Path]) -> bytes:
    hashed = xxhash.xxh3_128()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                hashed.update(block)
    return hashed.digest()


def copied(directory: Path, sources: list[Path], size: int, way: Way, threads: int, *, compare: bool) -> float:
    """The seconds of one copy."""
    copying = Copying(directory, sources, size, way)
    workers = [threading.Thread(target=copying.work, daemon=True) for _ in range(threads)]
    try:
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
        if copying.faults:
            raise copying.faults[0]
        if compare and not copying.same(sources):
            raise SystemExit(f"{way.name}: wrong bytes")
        return seconds
    finally:
        copying.stop(workers)
        copying.close()


def cp(directory: Path, sources: list[Path]) -> float:
    """The seconds of ``cp`` of all files at once."""
    target = directory / "cp"
    target.mkdir()
    began = time.perf_counter()
    copies = [subprocess.Popen(["cp", str(path), str(target)]) for path in sources]
    statuses = [copy.wait(CP_TIMEOUT) for copy in copies]
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    if any(statuses):
        raise SystemExit("cp failed")
    return seconds


def processor_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def measure(directory: Path, size: int, rounds: int, counts: list[int]) -> list[dict[str, Any]]:
    """Each way with each count of threads, and ``cp``, once in a round and in random order; a first does not count."""
    block = os.urandom(BLOCK)
    sources = [directory / f"source-{number}" for number in range(FILES)]
    for number, path in enumerate(sources):
        with path.open("wb") as file:
            for done in range(0, size // FILES, BLOCK):
                turn = (number * 7919 + done // BLOCK * 4099) % BLOCK
                file.write((block[turn:] + block[:turn])[: size // FILES - done])
    cases: list[tuple[str, int]] = [("cp of all eight", FILES)]
    ways = {way.name: way for way in possible()}
    cases += [(name, count) for name in ways for count in counts]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for name, count in random.sample(cases, len(cases)):
            before = processor_seconds()
            if name in ways:
                seconds = copied(directory, sources, size, ways[name], count, compare=not number)
            else:
                seconds = cp(directory, sources)
            if number:
                found[name, count].append((seconds, processor_seconds() - before))
        print(f"round {number} of {rounds}", file=sys.stderr)
    return [
        {
            "way": name,
            "threads": count,
            "gb_per_second": size / 1e9 / statistics.median(seconds for seconds, _ in each),
            "processor": statistics.median(spent for _, spent in each) * 1e9 / size,
        }
        for (name, count), each in found.items()
    ]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=as_amount, default=8.0, help="bytes in all (default 8 GiB)")
    parser.add_argument("--rounds", type=as_count, default=2, help="rounds counted, after one that is not (default 2)")
    parser.add_argument("--threads", type=as_counts, default=[8, 12, 16], help="counts of threads (default 8,12,16)")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="a tmpfs (default /dev/shm)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not options.directory.is_dir():
        parser.error(f"no such directory: {options.directory}")
    size = max(1, round(options.gib * (1 << 30) / FILES / CHUNK)) * FILES * CHUNK
    with tempfile.TemporaryDirectory(prefix="mooncake-writing-", dir=options.directory) as directory:
        rows = measure(Path(directory), size, options.rounds, options.threads)
    if options.json:
        print(json.dumps({"bytes": size, "rounds": options.rounds, "rows": rows}))
        return
    for row in rows:
        print(
            f"{row['way']:<34}{row['threads']:>3} threads{row['gb_per_second']:8.1f} GB/s"
            f"{row['processor']:8.2f} processor s/GB"
        )


if __name__ == "__main__":
    main()
