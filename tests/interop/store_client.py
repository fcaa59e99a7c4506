"""A process with the real Mooncake Store's client, driven by JSON lines on stdin; see test_store.py."""

from __future__ import annotations

import hashlib
import json
import os
import sys

from mooncake.store import MooncakeDistributedStore

MARK = "answer "
SEGMENT = 64 << 20
BUFFER = 32 << 20


def say(answer: dict[str, object]) -> None:
    print(MARK + json.dumps(answer), flush=True)


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
            value = hashlib.shake_256(ask["key"].encode()).digest(ask["length"])
            say({"code": store.put(ask["key"], value)})
        elif ask["do"] == "get":
            say({"sha256": hashlib.sha256(store.get(ask["key"])).hexdigest()})
        else:
            break
    store.close()
    say({"code": 0})


if __name__ == "__main__":
    main()
