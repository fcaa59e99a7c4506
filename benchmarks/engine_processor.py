"""Processor seconds that the transfer engine takes for a GB, with two engines in this process.

Unlike seconds by the clock they say little of what else the machine does meanwhile. ``beside.py`` runs this with either
checkout's interpreter; it uses what both have.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from engine.engine import Opcode, TransferEngine, TransferRequest

BUFFER = 64 << 20
BATCH = 16
CASES = [
    (opcode, block, threads) for opcode in ("READ", "WRITE") for block in (64 << 10, 1 << 20) for threads in (1, 4)
]


def spent(initiator: TransferEngine, segment: str, case: tuple[str, int, int], total: int) -> float:
    """Processor seconds for so many bytes, both sides'."""
    opcode, block, threads = case
    peer = initiator.open_segment(segment)
    address = peer.buffers[0].address
    lent = BUFFER // threads
    ours = [initiator.register_memory(bytearray(lent), writable=True) for _ in range(threads)]

    def work(number: int) -> None:
        memory = ours[number]
        for start in range(0, total // threads, BATCH * block):
            requests = [
                TransferRequest(Opcode[opcode], memory, peer, address + number * lent + at, length=block, offset=at)
                for at in ((start + n * block) % lent for n in range(BATCH))
            ]
            batch = initiator.submit_transfer(requests)
            batch.wait(timeout=60)
            batch.raise_failed()

    began = time.process_time()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.process_time() - began
    for each in ours:
        initiator.unregister_memory(each)
    return took


def main() -> None:
    """Print seconds for each case."""
    total = int(sys.argv[1]) << 20
    with TransferEngine() as target, TransferEngine() as initiator:
        target.register_memory(bytearray(BUFFER), writable=True)
        for case in CASES:
            spent(initiator, target.segment_name, case, total // 8)  # connections and threads
        found = {
            f"{case[0].lower()} {case[1] >> 10} KiB, {case[2]} threads": spent(
                initiator, target.segment_name, case, total
            )
            / (total / 1e9)
            for case in CASES
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
