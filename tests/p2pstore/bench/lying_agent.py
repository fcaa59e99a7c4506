"""An agent that flips a bit of everything that it sends over TCP. ``python -m tests.p2pstore.bench.lying_agent``."""

from __future__ import annotations

import socket
import sys

from engine.memory.buffers import FilesBuffer
from p2pstore.agent.agent import main

PIECE = 1 << 16


def send_flipped(self: FilesBuffer, sock: socket.socket, offset: int, length: int) -> int:
    data = bytearray(min(length, PIECE))
    self.read_into(offset, memoryview(data))
    data[0] ^= 1
    return sock.send(data)


FilesBuffer.send = send_flipped  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
