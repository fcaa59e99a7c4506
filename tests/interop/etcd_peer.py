"""A process with the real Mooncake Transfer Engine whose records are in etcd; run by test_gc.py with name and server."""

from __future__ import annotations

import ctypes
import sys

from mooncake.engine import TransferEngine

READY = "ready"


def main() -> None:
    engine = TransferEngine()
    if engine.initialize(sys.argv[1], sys.argv[2], "tcp", ""):
        sys.exit("initialize failed")
    memory = ctypes.create_string_buffer(1 << 20)
    if engine.register_memory(ctypes.addressof(memory), len(memory)):
        sys.exit("register_memory failed")
    print(READY, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
