"""A process with a client of a pooled store, driven by JSON lines on stdin; see test_store.py.

It is the real one, or ours under the same names: ``STORE_MODULE`` says where the class is.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

MARK = "answer "
SEGMENT = 64 << 20
BUFFER = 32 << 20
PERIOD = 1_000_003
"""Bytes after which a value repeats itself, lest large ones take longer to make than to put."""


def say(answer: dict[str, object]) -> None:
    print(MARK + json.dumps(answer), flush=True)


def value_of(key: str, length: int) -> bytes:
    """What is put under a key."""
    piece = hashlib.shake_256(key.encode()).digest(min(length, PERIOD))
    return piece if length <= PERIOD else (piece * (length // PERIOD + 1))[:length]


def digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def in_threads(threads: int, keys: list[str], work: Callable[[str], object]) -> list[object]:
    """The results of some work on each key, by so many threads at once."""
    made: dict[str, object] = {}

    def some(number: int) -> None:
        for key in keys[number::threads]:
            try:
                made[key] = work(key)
            except Exception as error:
                made[key] = f"{type(error).__name__}: {error}"

    running = [threading.Thread(target=some, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return [made[key] for key in keys]


def read(store: Any, keys: list[str], lengths: list[int], threads: int, times: int) -> dict[str, object]:
    """Get all keys over and over in threads; which came wrong, and how often."""
    values = {key: value_of(key, length) for key, length in zip(keys, lengths, strict=False)}
    wrong: dict[str, int] = {}

    def work(number: int) -> None:
        for turn in range(times):
            key = keys[(number + turn) % len(keys)]
            got = store.get(key)
            if got != values[key]:
                what = f"{key}: {len(got)} bytes"
                wrong[what] = wrong.get(what, 0) + 1

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return {"wrong": wrong}


def preferring(module: Any, segment: str | None) -> Any:
    """How a value is kept in this segment."""
    config = module.ReplicateConfig()
    if segment:
        config.preferred_segment = segment
    return config


def answer(module: Any, store: Any, ask: dict[str, Any]) -> dict[str, object]:
    """The answer to one question."""
    do, keys = ask["do"], ask.get("keys", [])
    lengths = dict(zip(keys, ask.get("lengths", []), strict=False))
    if do == "put":
        return {"code": store.put(ask["key"], value_of(ask["key"], ask["length"]))}
    if do == "get":
        return {"sha256": digest(store.get(ask["key"]))}
    if do == "put_batch":
        values = [value_of(*each) for each in lengths.items()]
        return {"code": store.put_batch(keys, values, preferring(module, ask.get("segment")))}
    if do == "get_batch":
        return {"sha256": [digest(value) for value in store.get_batch(keys)]}
    if do == "put_at":
        config = preferring(module, ask["segment"])
        put = in_threads(ask["threads"], keys, lambda key: store.put(key, value_of(key, lengths[key]), config))
        return {"code": put}
    if do == "get_all":
        return {"sha256": in_threads(ask["threads"], keys, lambda key: digest(store.get(key)))}
    if do == "name":
        return {"name": store.get_hostname()}
    if do == "exist":
        return {"found": store.batch_is_exist(keys)}
    if do == "remove":
        return {"code": store.remove(ask["key"])}
    if do == "remove_matching":
        return {"count": store.remove_by_regex(ask["pattern"], ask["force"])}
    assert do == "read", do
    return read(store, keys, ask["lengths"], ask["threads"], ask["times"])


def main() -> None:
    module = importlib.import_module(os.environ.get("STORE_MODULE", "mooncake.store"))
    store = module.MooncakeDistributedStore()
    name, metadata, master = (os.environ[each] for each in ("STORE_NAME", "STORE_METADATA", "STORE_MASTER"))
    # A client without a segment of its own must fetch every value from another's.
    segment = int(os.environ.get("STORE_SEGMENT", SEGMENT)) if os.environ["STORE_OFFERS"] == "1" else 0
    disk = os.environ.get("STORE_DISK")
    more = {"enable_ssd_offload": True, "ssd_offload_path": disk} if disk else {}  # old releases know neither
    size = int(os.environ.get("STORE_BUFFER", BUFFER))
    code = store.setup(name, metadata, segment, size, "tcp", "", master, **more)
    say({"code": code})
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["do"] == "end":
            break
        say(answer(module, store, ask))
    store.close()
    say({"code": 0})


if __name__ == "__main__":
    main()
