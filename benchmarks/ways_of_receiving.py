"""What other ways from a socket into a file would cost: each in the fewest lines, without the rest of a get.

::

    python benchmarks/ways_of_receiving.py [--mib 512] [--rounds 4] [--connections 2,4] [--file /dev/shm/received]

A process sends a file of /dev/shm over loopback with ``sendfile``; threads ask for 4 MiB at a time, receive, hash with
xxh3_128, and have it in a file. Each round takes every way once, in a new random order. Told are medians of seconds
for a GB, and of what both processes took of the processors for it.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import mmap
import os
import random
import select
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import xxhash
from counts import as_count, as_counts

CHUNK = 4 << 20
AT_ONCE = 1 << 18
"""Bytes that are waited for at once."""

PIECE = 1 << 20
BLOCK = 16 << 20
REQUEST = struct.Struct("QQ")
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE
SPLICE_MOVE = 1
F_SETPIPE_SZ = 1031
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Receiving:
    """One thread's socket, and the file with its mapping."""

    def __init__(self, sock: socket.socket, file: int, mapped: mmap.mmap) -> None:
        self.sock = sock
        self.file = file
        self.view = memoryview(mapped)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        self.scratch = memoryview(bytearray(PIECE))
        self.pipe = os.pipe()
        fcntl.fcntl(self.pipe[1], F_SETPIPE_SZ, PIECE)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def wait(self, left: int) -> None:
        """Until so much is there, or ``AT_ONCE``."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(left, AT_ONCE))
        self._poll.poll(20_000)

    def fill(self, room: memoryview) -> None:
        """Receive so much."""
        done = 0
        while done < len(room):
            self.wait(len(room) - done)
            done += self.sock.recv_into(room[done:], 0, socket.MSG_DONTWAIT)

    def populate(self, at: int, count: int) -> None:
        """Have the pages of a range of the mapping, ready to be written."""
        if LIBC.madvise(self.address + at, count, POPULATE_WRITE):
            raise OSError(ctypes.get_errno(), "madvise")

    def read_back(self, at: int, count: int) -> memoryview:
        """A range of the file, by way of the scratch buffer."""
        os.preadv(self.file, [self.scratch[:count]], at)
        return self.scratch[:count]


Hash = Callable[[memoryview], object]


def in_pieces(size: int) -> Callable[[Receiving, int, Hash], None]:
    """Receive into a buffer of so many bytes, hash, and write."""

    def way(it: Receiving, at: int, update: Hash) -> None:
        for begin in range(at, at + CHUNK, size):
            it.fill(it.scratch[:size])
            update(it.scratch[:size])
            os.pwrite(it.file, it.scratch[:size], begin)

    return way


def mapped(*, populated: bool, read_back: bool = False) -> Callable[[Receiving, int, Hash], None]:
    """Receive into the file's mapping; hash there, or what is read back from the file."""

    def way(it: Receiving, at: int, update: Hash) -> None:
        for begin in range(at, at + CHUNK, PIECE):
            if populated:
                it.populate(begin, PIECE)
            it.fill(it.view[begin : begin + PIECE])
            update(it.read_back(begin, PIECE) if read_back else it.view[begin : begin + PIECE])

    return way


def spliced(it: Receiving, at: int, update: Hash) -> None:
    """Splice from the socket into a pipe and from there into the file, and hash what is read back."""
    done = 0
    while done < CHUNK:
        it.wait(CHUNK - done)
        came = os.splice(it.sock.fileno(), it.pipe[1], min(PIECE, CHUNK - done), flags=SPLICE_MOVE)
        moved = 0
        while moved < came:
            moved += os.splice(it.pipe[0], it.file, came - moved, offset_dst=at + done + moved, flags=SPLICE_MOVE)
        update(it.read_back(at + done, came))
        done += came


def not_written(it: Receiving, _: int, update: Hash) -> None:
    """Receive and hash, for the floor of it."""
    for _piece in range(0, CHUNK, PIECE):
        it.fill(it.scratch)
        update(it.scratch)


WAYS: dict[str, Callable[[Receiving, int, Hash], None]] = {
    "pwrite, 256 KiB": in_pieces(1 << 18),
    "pwrite, 1 MiB": in_pieces(1 << 20),
    "mapping, populated a MiB ahead": mapped(populated=True),
    "mapping, populated, hashed by reading back": mapped(populated=True, read_back=True),
    "mapping, touched as it comes": mapped(populated=False),
    "splice, hashed by reading back": spliced,
    "not written": not_written,
}


def tuned(sock: socket.socket) -> socket.socket:
    """As ``engine.net.sockets.tune`` has it on loopback."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    return sock


def serve(listener: socket.socket, source: Path, count: int) -> None:
    """Be the process that sends, over so many connections, until they end."""

    def answer(sock: socket.socket) -> None:
        with source.open("rb") as file:
            while len(asked := sock.recv(REQUEST.size, socket.MSG_WAITALL)) == REQUEST.size:
                at, length = REQUEST.unpack(asked)
                end = at + length
                while at < end:
                    at += os.sendfile(sock.fileno(), file.fileno(), at, end - at)

    threads = [threading.Thread(target=answer, args=(tuned(listener.accept()[0]),)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(way: Callable[[Receiving, int, Hash], None], source: Path, dest: Path, connections: int) -> dict[str, float]:
    """Bring the file once; seconds for a GB, by the clock and of the processors."""
    size = source.stat().st_size
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if not child:
            serve(listener, source, connections)
            os._exit(0)
        port = listener.getsockname()[1]
    todo = iter(range(0, size, CHUNK))
    lock = threading.Lock()
    before, began = os.times(), time.perf_counter()
    with dest.open("w+b") as file:
        file.truncate(size)
        whole = mmap.mmap(file.fileno(), size)

        def work() -> None:
            with tuned(socket.create_connection(("127.0.0.1", port))) as sock:
                sock.setblocking(True)
                it = Receiving(sock, file.fileno(), whole)
                asked: list[int] = []
                while True:
                    while len(asked) < 2:  # one more is on its way while the first arrives
                        with lock:
                            at = next(todo, None)
                        if at is None:
                            break
                        sock.sendall(REQUEST.pack(at, CHUNK))
                        asked.append(at)
                    if not asked:
                        break
                    hashed = xxhash.xxh3_128()
                    way(it, asked.pop(0), hashed.update)
                    hashed.digest()
                for end in it.pipe:
                    os.close(end)

        threads = [threading.Thread(target=work) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        os.waitpid(child, 0)
        after = os.times()
    if way is not not_written and not same(source, dest):
        raise SystemExit("the file is not what was sent")
    dest.unlink()
    spent = sum(after[:4]) - sum(before[:4])
    return {"seconds": seconds * 1e9 / size, "processor": spent * 1e9 / size}


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes."""
    with one.open("rb") as first, other.open("rb") as second:
        return all(first.read(BLOCK) == second.read(BLOCK) for _ in range(0, one.stat().st_size, BLOCK))


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=as_count, default=512, help="size of the file, in 16 MiB (default 512)")
    parser.add_argument("--rounds", type=as_count, default=4, help="rounds counted, after one that is not (default 4)")
    parser.add_argument("--connections", type=as_counts, default=[2, 4], help="how many at a time (default 2,4)")
    parser.add_argument("--file", type=Path, default=Path("/dev/shm/received"), help="what is written")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    source = Path(f"/dev/shm/sent-{os.getpid()}")
    dest = options.file.with_name(f"{options.file.name}-{os.getpid()}")
    cases = [(name, count) for name in WAYS for count in options.connections]
    found: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    try:
        with source.open("wb") as file:
            for _ in range(0, options.mib << 20, BLOCK):
                file.write(os.urandom(BLOCK))
        for number in range(options.rounds + 1):
            for name, count in random.sample(cases, len(cases)):
                figures = run(WAYS[name], source, dest, count)
                if number:
                    found[name, count].append(figures)
    finally:
        source.unlink(missing_ok=True)
        dest.unlink(missing_ok=True)
    rows = [
        {"way": name, "connections": count}
        | {figure: statistics.median(each[figure] for each in rounds) for figure in ("seconds", "processor")}
        for (name, count), rounds in found.items()
    ]
    if options.json:
        print(json.dumps({"mib": options.mib, "rounds": options.rounds, "rows": rows}))
        return 0
    for row in rows:
        what = f"{row['way']}, {row['connections']} connections"
        print(f"{what:<60}{row['seconds']:6.2f} s/GB, processors {row['processor']:.2f} s/GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
