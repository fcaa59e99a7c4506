"""The real Mooncake Transfer Engine as a file copier, for ``copy_speed.py``: from one file's mapping into another's.

::

    upstream_copy.py serve FILE                             print "serving SEGMENT ADDRESS", until stdin ends
    upstream_copy.py copy SEGMENT ADDRESS LENGTH FILE       copy there, print "seconds S"
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mooncake.engine import TransferEngine

THREADS = 2
BATCH_BYTES = 16 << 20


def address_of(mapped: mmap.mmap) -> int:
    """Where a mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


def engine() -> TransferEngine:
    """A running engine on loopback."""
    made = TransferEngine()
    if made.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
        raise SystemExit("the engine does not start")
    return made


def serve(path: str) -> None:
    """Serve a file's mapping."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        # Private: a writable shared mapping would look like a change of the file to whoever watches it.
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    address = address_of(mapped)
    made = engine()
    if made.register_memory(address, size) != 0:
        raise SystemExit("the engine does not register the mapping")
    print(f"serving 127.0.0.1:{made.get_rpc_port()} {address}", flush=True)
    sys.stdin.read()


def copy(segment: str, address: int, length: int, path: str) -> None:
    """Read the whole segment into a file, in several requests at a time."""
    made = engine()
    began = time.perf_counter()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, length)
    mapped = mmap.mmap(descriptor, length)
    own = address_of(mapped)
    if made.register_memory(own, length) != 0:
        raise SystemExit("the engine does not register the mapping")

    def read(offset: int) -> int:
        count = min(BATCH_BYTES, length - offset)
        return int(made.transfer_sync_read(segment, own + offset, address + offset, count))

    with ThreadPoolExecutor(THREADS) as pool:
        if any(pool.map(read, range(0, length, BATCH_BYTES))):
            raise SystemExit("a transfer failed")
    mapped.flush()
    print(f"seconds {time.perf_counter() - began:.4f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        copy(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
