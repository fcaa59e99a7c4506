"""A process with the real Mooncake Transfer Engine, driven by JSON lines on stdin; run by test_upstream.py."""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys

from mooncake.engine import TransferEngine

MARK = "answer "
CAPACITY = 32 << 20


def main() -> None:
    engine = TransferEngine()
    if engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""):
        sys.exit("initialize failed")
    memory = ctypes.create_string_buffer(CAPACITY)
    base = ctypes.addressof(memory)
    if engine.register_memory(base, CAPACITY):
        sys.exit("register_memory failed")
    view = memoryview(memory).cast("B")
    view[:] = hashlib.shake_256(b"upstream").digest(CAPACITY)
    say({"segment": f"127.0.0.1:{engine.get_rpc_port()}", "address": base, "length": CAPACITY})
    for line in sys.stdin:
        ask = json.loads(line)
        at, length = ask["at"], ask["length"]
        if ask["do"] == "read":
            code = engine.transfer_sync_read(ask["segment"], base + at, ask["address"], length)
        elif ask["do"] == "write":
            code = engine.transfer_sync_write(ask["segment"], base + at, ask["address"], length)
        else:
            code = 0
        say({"code": code, "sha256": hashlib.sha256(view[at : at + length]).hexdigest()})


def say(answer: dict[str, object]) -> None:
    print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
