"""A process with the real Mooncake Store's client, driven by JSON lines on stdin; see test_store.py."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading

from mooncake.store import MooncakeDistributedStore

MARK = "answer "
SEGMENT = 64 << 20
BUFFER = 32 << 20


def say(answer: dict[str, object]) -> None:
    print(MARK + json.dumps(answer), flush=True)


def value_of(key: str, length: int) -> bytes:
    return hashlib.shake_256(key.encode()).digest(length)


def read(
    store: MooncakeDistributedStore, keys: list[str], lengths: list[int], threads: int, times: int
) -> dict[str, object]:
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


def main() -> None:
    store = MooncakeDistributedStore()
    name, metadata, master = (os.environ[each] for each in ("STORE_NAME", "STORE_METADATA", "STORE_MASTER"))
    # A client without a segment of its own must fetch every value from another's.
    segment = SEGMENT if os.environ["STORE_OFFERS"] == "1" else 0
    code = store.setup(name, metadata, segment, BUFFER, "tcp", "", master)
    say({"code": code})
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["do"] == "put":
            say({"code": store.put(ask["key"], value_of(ask["key"], ask["length"]))})
        elif ask["do"] == "get":
            say({"sha256": hashlib.sha256(store.get(ask["key"])).hexdigest()})
        elif ask["do"] == "put_batch":
            say(
                {
                    "code": store.put_batch(
                        ask["keys"], [value_of(*each) for each in zip(ask["keys"], ask["lengths"], strict=False)]
                    )
                }
            )
        elif ask["do"] == "get_batch":
            say({"sha256": [hashlib.sha256(value).hexdigest() for value in store.get_batch(ask["keys"])]})
        elif ask["do"] == "exist":
            say({"found": store.batch_is_exist(ask["keys"])})
        elif ask["do"] == "remove":
            say({"code": store.remove(ask["key"])})
        elif ask["do"] == "read":
            say(read(store, ask["keys"], ask["lengths"], ask["threads"], ask["times"]))
        else:
            break
    store.close()
    say({"code": 0})


if __name__ == "__main__":
    main()
