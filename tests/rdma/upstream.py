"""Upstream's engine over RDMA, in a process of its own: ``HOST DEVICE target SIZE`` or ``initiator SEGMENT ADDRESS SIZE``."""

from __future__ import annotations

import ctypes
import importlib
import json
import mmap
import os
import random
import sys
from typing import Any


def memory_of(engine: Any, size: int) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert engine.register_memory(address, size) == 0
    return memory, address


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def main(host: str, device: str, role: str, *arguments: str) -> None:
    engine = importlib.import_module("mooncake.engine").TransferEngine()
    assert engine.initialize(host, "P2PHANDSHAKE", "rdma", device) == 0
    if role == "target":
        size = int(arguments[0])
        memory, address = memory_of(engine, size)
        memory[:] = random.Random(7).randbytes(256) * (size // 256)
        say(segment=f"{host}:{engine.get_rpc_port()}", address=address, first=memory[:16].hex())
        sys.stdin.readline()
        say(first=memory[:16].hex(), last=memory[-16:].hex())
    else:
        segment, there, size = arguments[0], int(arguments[1]), int(arguments[2])
        memory, address = memory_of(engine, size)
        read = engine.transfer_sync_read(segment, address, there, size)
        first = memory[:16].hex()
        memory[:] = memory[::-1]
        write = engine.transfer_sync_write(segment, address, there, size)
        say(protocol="rdma", read=read, first=first, write=write)
    os._exit(0)  # its threads take the interpreter's end badly


if __name__ == "__main__":
    main(*sys.argv[1:])
