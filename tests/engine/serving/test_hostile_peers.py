"""Any bytes on either port are answered, refused or closed; the process lives on, and its memory stays bounded.

The server runs in a process of its own, so that its memory can be measured.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.engine import TransferEngine
from engine.protocol import wire

ROOT = Path(__file__).resolve().parents[3]
SIZE = 8 << 20

SERVER = f"""
import json, resource, sys
from engine.engine import TransferEngine
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 8192), limit))
with TransferEngine() as engine:
    memory = engine.register_memory(bytearray({SIZE}), writable=True)
    print(json.dumps([engine.segment_name, engine.data_port, engine.rpc_port, memory.address]), flush=True)
    sys.stdin.read()
"""

GROWTH_AFTER_NOISE = 64 << 20
"""Bytes that the process may have grown after all the noise below: workers' stacks, buffers, the allocator's slack."""

IDLE_CONNECTION = 8 << 10
"""Bytes of the process for each idle connection."""


class Server:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.name, self.data, self.rpc, self.address = json.loads(self.process.stdout.readline())

    def memory(self) -> int:
        """Bytes in RAM now."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * resource.getpagesize()

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def lives(self) -> None:
        """It serves both ports, in order and whole."""
        with TransferEngine() as engine:
            segment = engine.open_segment(self.name)
            engine.write(b"alive" * 100, segment, self.address)
            got = bytearray(500)
            engine.read(got, segment, self.address)
            assert got == b"alive" * 100
            assert engine.probe(segment) > 0

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    made.lives()
    yield made
    made.close()


def any_bytes(rng: random.Random, _: Server) -> bytes:
    return rng.randbytes(rng.choice([1, 8, 23, 24, 25, 100, 5000]))


def odd_header(rng: random.Random, server: Server) -> bytes:
    """A header that is nearly right, and some of the bytes that it announces."""
    length = rng.choice([0, 1, 4096, SIZE, SIZE + 1, 1 << 31, 1 << 63, (1 << 64) - 1])
    address = rng.choice([0, 1, server.address - 1, server.address, server.address + SIZE - 1, (1 << 64) - 1])
    opcode = rng.choice([0, 1, 2, 0x7F, 0x80, 0x81, 0x82, 0xFF])
    return struct.pack("<QQB7s", length, address, opcode, rng.randbytes(7)) + rng.randbytes(rng.randrange(3000))


def many_headers(rng: random.Random, server: Server) -> bytes:
    ranges = [(server.address + rng.randrange(SIZE - 70_000), rng.randrange(1, 70_000)) for _ in range(50)]
    return b"".join(wire.pack_request(*each, version=rng.choice([1, 2])) for each in ranges)


def framed(rng: random.Random, _: Server) -> bytes:
    """A frame of the handshake with a body that is no good."""
    body = rng.choice([
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 20_000, b'"' + b"x" * 900_000, b"1" * 5000,
        b'{"name":1,"notify_msg":[]}', b'{"name":"n"}', rng.randbytes(300),
    ])  # fmt: skip
    kind = rng.choice([0, 1, 2, 3, 4, 200, 255])
    payload = bytes([kind]) + body
    length = rng.choice([len(payload)] * 6 + [0, 1 << 20, (1 << 20) + 1, 1 << 40, (1 << 64) - 1])
    return struct.pack("<Q", length) + payload


@contextlib.contextmanager
def crowd() -> Iterator[Callable[[int], socket.socket]]:
    """Connections that stay open to the end, whatever is done with them."""
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))


@pytest.mark.parametrize("seed", range(3))
def test_noise(server: Server, seed: int) -> None:
    rng = random.Random(seed)
    before = server.memory()
    with crowd() as connect:
        for number in range(300):
            on_data = bool(number % 2)
            noise = rng.choice([any_bytes, odd_header, many_headers, framed])(rng, server)
            sock = connect(server.data if on_data else server.rpc)
            with contextlib.suppress(OSError):
                sock.settimeout(0.5)
                sock.sendall(noise)
            if rng.random() < 0.5:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
            if rng.random() < 0.3:
                sock.close()
        server.lives()
    server.lives()
    assert server.process.poll() is None
    assert server.memory() - before < GROWTH_AFTER_NOISE


def test_half_sent_handshakes_are_held_within_a_bound(server: Server) -> None:
    before = server.memory()
    with crowd() as connect:
        for _ in range(200):
            sock = connect(server.rpc)
            sock.settimeout(0.5)
            with contextlib.suppress(OSError):
                sock.sendall(struct.pack("<Q", 1 << 20) + b"\x01" + b" " * 1_000_000)
        server.lives()
        assert server.memory() - before < GROWTH_AFTER_NOISE


def test_a_thousand_idle_connections(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"NO CROWD: a process may have {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    try:
        with crowd() as connect:
            before = server.memory()
            for _ in range(1000):
                sock = connect(server.data)
                # Each has been served once: it has been through a worker, and is parked again.
                sock.sendall(wire.pack_request(server.address, 1))
                left = 9
                while left:
                    got = len(sock.recv(left))
                    assert got
                    left -= got
            server.lives()
            assert server.descriptors() >= 1000
            assert server.memory() - before < 1000 * IDLE_CONNECTION
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_readers_and_writers_hold_nobody_up(server: Server) -> None:
    with crowd() as connect:
        for number in range(100):
            sock = connect(server.data)
            if number % 2:
                sock.sendall(wire.pack_request(server.address, SIZE))  # and never reads
            else:
                sock.sendall(wire.pack_request(server.address, SIZE, opcode=wire.Opcode.WRITE) + b"a few bytes")
        before = server.memory()
        for _ in range(5):
            with TransferEngine() as engine:
                got = bytearray(1 << 20)
                engine.read(got, engine.open_segment(server.name), server.address + 100, timeout=60)
        assert server.memory() - before < GROWTH_AFTER_NOISE
