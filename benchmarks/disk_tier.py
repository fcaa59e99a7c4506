"""Direct I/O beside the kernel's cache, for the log of values on disk: in turns, in one directory.

    python benchmarks/disk_tier.py DIRECTORY --mib 1024 --rounds 5

Of each size: GB/s of writes with the sync that makes them last at the end, of reads of what is not in the kernel's
cache, and of the same reads again. The directory must lie on the disk that is meant, and be empty or not there.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import time
from collections import defaultdict
from pathlib import Path

from counts import as_count

from p2pstore.kv.tiers.log import VALUES, Log

SIZES = (128 << 10, 1 << 20, 16 << 20)


def measure(directory: Path, size: int, total: int, *, direct: bool) -> dict[str, float]:
    """GB/s of each kind."""
    log = Log(directory, total + (total >> 3) + (64 << 20), direct=direct)
    log.load()
    value = memoryview(os.urandom(size))
    keys = [f"k{number}" for number in range(total // size)]
    descriptor = os.open(directory / VALUES, os.O_RDONLY)
    taken = {}
    began = time.perf_counter()
    for key in keys:
        log.write(key, value)
    os.fsync(descriptor)
    taken["write"] = time.perf_counter() - began
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    random.Random(1).shuffle(keys)
    room = memoryview(bytearray(size))
    for kind in ("read", "read again"):
        began = time.perf_counter()
        for key in keys:
            assert log.read_into(key, room)
        taken[kind] = time.perf_counter() - began
    log.close()
    shutil.rmtree(directory)
    return {kind: total / seconds / 1e9 for kind, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--mib", type=as_count, default=1024)
    parser.add_argument("--rounds", type=as_count, default=5)
    options = parser.parse_args()
    place = options.directory / "measured"
    print(f"{'size':>8}  {'':10}  {'direct':>7}  {'cached':>7}  GB/s: medians of rounds, and of their ratios")
    for size in SIZES:
        seen: dict[tuple[str, bool], list[float]] = defaultdict(list)
        for number in range(options.rounds):
            for direct in (True, False) if number % 2 else (False, True):
                for kind, rate in measure(place, size, options.mib << 20, direct=direct).items():
                    seen[kind, direct].append(rate)
        for kind in ("write", "read", "read again"):
            ours, cached = seen[kind, True], seen[kind, False]
            ratio = statistics.median(one / other for one, other in zip(ours, cached, strict=True))
            print(
                f"{size >> 10:>4} KiB  {kind:10}  {statistics.median(ours):7.2f}  {statistics.median(cached):7.2f}"
                f"  {ratio:.2f}"
            )


if __name__ == "__main__":
    main()
