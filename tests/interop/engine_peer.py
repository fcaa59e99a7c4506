"""A process with the real Mooncake Transfer Engine, driven by JSON lines on stdin; see test_transfer.py.

Or with ours under the same names: ``ENGINE_MODULE`` says where the class is.
Its memory holds bytes that follow from a seed, so that both sides know them.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import hashlib
import importlib
import json
import os
import sys
import time

MODULE = importlib.import_module(os.environ.get("ENGINE_MODULE", "mooncake.engine"))

MARK = "answer "

NOTIFIED_SECONDS = 60
"""For a notification to come."""


class Peer:
    def __init__(self) -> None:
        self.engine = MODULE.TransferEngine()
        name, metadata = os.environ["PEER_NAME"], os.environ["PEER_METADATA"]
        self.capacity = int(os.environ["PEER_CAPACITY"])
        if self.engine.initialize(name, metadata, "tcp", ""):
            sys.exit("initialize failed")
        self.memory = ctypes.create_string_buffer(self.capacity)
        self.base = ctypes.addressof(self.memory)
        self.view = memoryview(self.memory).cast("B")
        if self.engine.register_memory(self.base, self.capacity):
            sys.exit("register_memory failed")
        # Under P2PHANDSHAKE the port in the name is the one that was had, not the one that was asked for.
        segment = f"127.0.0.1:{self.engine.get_rpc_port()}" if metadata == "P2PHANDSHAKE" else name
        say({"segment": segment, "address": self.base, "capacity": self.capacity})

    def fill(self, seed: int, at: int, length: int) -> dict[str, object]:
        self.view[at : at + length] = hashlib.shake_256(str(seed).encode()).digest(length)
        return {}

    def hash(self, at: int, length: int) -> dict[str, object]:
        return {"sha256": hashlib.sha256(self.view[at : at + length]).hexdigest()}

    def read(self, segment: str, address: int, at: int, length: int) -> dict[str, object]:
        code = self.engine.transfer_sync_read(segment, self.base + at, address, length)
        return {"code": code, **self.hash(at, length)}

    def write(self, segment: str, address: int, at: int, length: int) -> dict[str, object]:
        code = self.engine.transfer_sync_write(segment, self.base + at, address, length)
        return {"code": code, **self.hash(at, length)}

    def batch(self, opcode: str, segment: str, pieces: list[tuple[int, int, int]]) -> dict[str, object]:
        """Pieces are (address, at, length)."""
        act = self.engine.batch_transfer_sync_read if opcode == "read" else self.engine.batch_transfer_sync_write
        return {
            "code": act(segment, [self.base + p[1] for p in pieces], [p[0] for p in pieces], [p[2] for p in pieces])
        }

    def threads(self, segment: str, pieces: list[tuple[int, int, int]], count: int) -> dict[str, object]:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            codes = list(pool.map(lambda p: self.read(segment, p[0], p[1], p[2])["code"], pieces))
        return {"code": max(codes, key=abs)}

    def notify(self, segment: str, address: int, name: str, text: str) -> dict[str, object]:
        """A write of one byte, and the notification that follows it."""
        return {
            "code": self.engine.transfer_sync(
                segment, self.base, address, 1, MODULE.TransferOpcode.Write, MODULE.TransferNotify(name, text)
            )
        }

    def notified(self) -> dict[str, object]:
        deadline = time.monotonic() + NOTIFIED_SECONDS
        while time.monotonic() < deadline:
            found = self.engine.get_notifies()
            if found:
                return {"notifications": [[each.name, each.msg] for each in found]}
            time.sleep(0.02)
        return {"notifications": []}

    def probe(self, segment: str) -> dict[str, object]:
        return {"code": self.engine.send_probe(segment)}


def say(answer: dict[str, object]) -> None:
    print(MARK + json.dumps(answer), flush=True)


def main() -> None:
    peer = Peer()
    for line in sys.stdin:
        ask = json.loads(line)
        say(getattr(peer, ask.pop("do"))(**ask))


if __name__ == "__main__":
    main()
