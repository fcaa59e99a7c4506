"""How long other threads stand still while memory is registered, with each implementation of the verbs.

    python scripts/rdma_vm.py -- .venv/bin/python benchmarks/registering.py

It needs an RDMA device, and pyverbs for its half.
"""

from __future__ import annotations

import argparse
import mmap
import threading
import time

from counts import as_count

from engine.errors import TransportUnavailable
from engine.memory.region import Region
from engine.transports.rdma.verbs.interface import Access
from engine.transports.rdma.verbs.load import NAMES, load_verbs

TICK = 0.005


def measure(name: str, size: int) -> tuple[float, float]:
    """Seconds to register, and the longest that another thread did not run meanwhile."""
    verbs = load_verbs(name)
    context = verbs.open(verbs.devices()[0])
    held = Region.of(mmap.mmap(-1, size))
    silences: list[float] = []
    over = threading.Event()

    def tick():
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(TICK)
            now = time.perf_counter()
            silences.append(now - last)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.1)
    began = time.perf_counter()
    region = context.register(held.address, size, Access.REMOTE_READ)
    took = time.perf_counter() - began
    time.sleep(0.1)
    over.set()
    thread.join()
    region.close()
    held.close()
    context.close()
    return took, max(silences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mib", type=as_count, default=512)
    size = parser.parse_args().mib << 20
    for name in NAMES:
        try:
            took, silence = measure(name, size)
        except TransportUnavailable as error:
            print(f"{name}: {error}")
            continue
        print(f"{name}: registering {size >> 20} MiB took {took:.2f} s, another thread was silent for {silence:.2f} s")


if __name__ == "__main__":
    main()
