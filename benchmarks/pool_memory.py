"""What the state of a pooled store costs: memory a key, processor time a call, the longest steps of what takes long.

    python benchmarks/pool_memory.py [KEYS]

Keys are like vLLM's, of some 120 characters. The process is its own: run it alone.
"""

from __future__ import annotations

import gc
import hashlib
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.rpc.messages import ObjectMeta, ReplicateConfig, Segment
from p2pstore.kv.master.run import calm_collector
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings
from p2pstore.kv.pool.walks import Steps

BATCH = 128
VALUE = 262_144
CLIENT = bytes(16)


class Clock:
    later = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.later


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def key(number: int) -> str:
    digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
    return f"Llama-3.1-70B@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@{digest}"


def timed(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def fresh(number: int) -> list[str]:
    """As a codec makes them: new strings, whose hashes are not known yet."""
    return [key(each) for each in range(number, number + BATCH)]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    count -= count % BATCH
    clock = Clock()
    pool = Pool(PoolSettings(log=True, eviction_ratio=0.5), clock)
    pool.mount(CLIENT, Segment(bytes(range(16)), "node:1", 1 << 40, int(count * VALUE / 0.95), "node:1"))
    config = ReplicateConfig()
    gc.collect()
    gc.disable()
    before = resident()
    puts = []
    for at in range(0, count, BATCH):
        keys = fresh(at)
        metas = [ObjectMeta(each) for each in keys]
        puts.append(
            timed(lambda keys=keys: pool.put_begin(CLIENT, keys, [VALUE] * BATCH, config))
            + timed(lambda metas=metas: pool.put_end(CLIENT, metas))
        )
        pool.take_log()
    gc.collect()
    after = resident()
    print(f"{count} keys of {len(key(1))} characters: {(after - before) / count:.0f} bytes a key")
    print(f"put, batches of {BATCH}: {statistics.median(puts) / BATCH * 1e6:.1f} us a key")
    looks = [timed(partial(pool.exist, fresh(at))) for at in range(0, count, BATCH)]
    print(f"exist, batches of {BATCH}: {statistics.median(looks) * 1e6:.0f} us a batch")
    gets = [timed(partial(pool.found, fresh(at))) for at in range(0, count, BATCH)]
    print(f"replicas, batches of {BATCH}: {statistics.median(gets) * 1e6:.0f} us a batch")
    clock.later = 3600.0  # when no lease holds any more
    pool.ping(CLIENT)
    steps = []
    more = True
    while more:
        began = time.thread_time()
        more = pool.tick()
        steps.append(time.thread_time() - began)
        pool.take_log()
    went = pool.stats.evicted_key_count
    print(f"evicting {went} keys: {sum(steps) / went * 1e6:.1f} us a key")
    print(f"the longest of {len(steps)} steps: {max(steps) * 1e3:.1f} ms")
    gc.enable()
    calm_collector()  # as a master has it
    for what, work in (
        ("finding half of the keys by a pattern", lambda: pool.replicas_by_regex("[0-7]$")),
        ("looking for none", lambda: pool.remove_by_regex("a.*b.*none")),
        ("removing half of them by a pattern", lambda: pool.remove_by_regex("[0-7]$", force=True)),
        ("removing all", lambda: pool.remove_all(force=True)),
    ):
        lasts = stepwise(work())
        print(f"{what}: {sum(lasts):.2f} s, the longest of {len(lasts)} steps {max(lasts) * 1e3:.1f} ms")


def stepwise(steps: Steps[object]) -> list[float]:
    """How long each step took, seconds."""
    lasts = []
    while True:
        began = time.thread_time()
        try:
            next(steps)
        except StopIteration:
            return [*lasts, time.thread_time() - began]
        lasts.append(time.thread_time() - began)


if __name__ == "__main__":
    main()
