"""The real Mooncake Transfer Engine and ours read and write each other, over every metadata server and wire version."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.engine import P2PHANDSHAKE, Opcode, TransferEngine, TransferRequest
from engine.errors import RangeRefused
from tests.interop.wheels import OLD, Wheel, wheel
from tests.ports import reserved_port

PEER = Path(__file__).with_name("engine_peer.py")
CAPACITY = 48 << 20
LARGEST = 256 << 20
SIZES = [1, 7, 4095, 65_537, (1 << 20) + 3, 16 << 20]
WRITTEN_SECONDS = 60
"""For what was written without an acknowledgement to be there."""


class Upstream:
    """A process of the wheel's."""

    def __init__(self, wheel: Wheel, metadata: str, capacity: int = CAPACITY) -> None:
        name = f"127.0.0.1:{reserved_port()}"
        self._process = wheel.run(PEER, PEER_NAME=name, PEER_METADATA=metadata, PEER_CAPACITY=str(capacity))
        me = self._answer()
        self.segment, self.address, self.capacity = me["segment"], me["address"], me["capacity"]

    def __call__(self, do: str, **arguments: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("answer "):
                return dict(json.loads(line.removeprefix("answer ")))
        return pytest.fail(f"the real engine ended with status {self._process.wait(10)}")

    def close(self) -> None:
        try:
            self._process.communicate(timeout=30)
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise


@pytest.fixture(scope="module", params=["newest", "newest-as-v1", OLD])
def installed(request: pytest.FixtureRequest) -> Wheel:
    return wheel(request.param)


@pytest.fixture(scope="module")
def upstream(installed: Wheel, metadata: str) -> Iterator[Upstream]:
    made = Upstream(installed, metadata)
    yield made
    made.close()


@pytest.fixture
def ours(metadata: str) -> Iterator[TransferEngine]:
    with TransferEngine(f"127.0.0.1:{reserved_port()}", metadata) as made:
        yield made


def known(seed: int, length: int) -> bytes:
    return hashlib.shake_256(str(seed).encode()).digest(length)


def sha(data: bytes | bytearray | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def eventually(upstream: Upstream, check: Callable[[], bool]) -> bool:
    """A version 1 write has no acknowledgement: wait for it, with calls that take the other side some time."""
    deadline = time.monotonic() + WRITTEN_SECONDS
    while not check():
        if time.monotonic() > deadline:
            return False
        upstream("hash", at=0, length=1 << 20)
    return True


def test_it_reads_and_writes_ours(upstream: Upstream, ours: TransferEngine) -> None:
    memory = bytearray(known(1, CAPACITY // 2))
    address = ours.register_memory(memory, writable=True).address
    for size in SIZES:
        for at in (0, 13):
            answer = upstream("read", segment=ours.segment_name, address=address + at, at=5, length=size)
            assert answer == {"code": 0, "sha256": sha(memoryview(memory)[at : at + size])}
        upstream("fill", seed=size, at=3, length=size)
        answer = upstream("write", segment=ours.segment_name, address=address + 11, at=3, length=size)
        assert answer["code"] == 0
        assert eventually(upstream, lambda size=size: memory[11 : 11 + size] == known(size, size))  # type: ignore[misc]


def test_it_is_refused_beyond_ours(upstream: Upstream, ours: TransferEngine) -> None:
    memory = bytearray(1000)
    open_ = ours.register_memory(memory, writable=True)
    closed = ours.register_memory(bytes(1000))
    name = ours.segment_name
    assert upstream("read", segment=name, address=open_.address, at=0, length=1001)["code"] != 0
    assert upstream("read", segment=name, address=open_.address - 1, at=0, length=10)["code"] != 0
    upstream("fill", seed=3, at=0, length=1000)
    for address, length in [(open_.address + 999, 2), (closed.address, 10)]:
        # Version 1 does not tell its client; ours applies nothing either way.
        upstream("write", segment=name, address=address, at=0, length=length)
    # After failures in a row the wheel does not even try for a second: "TCP lane failure", connect_failed.
    answers = (upstream("read", segment=name, address=closed.address, at=0, length=1000) for _ in range(5))
    assert any(answer["code"] == 0 for answer in answers)
    assert memory == bytes(1000)


def test_it_reads_and_writes_many_at_once(upstream: Upstream, ours: TransferEngine) -> None:
    memory = bytearray(known(2, 8 << 20))
    address = ours.register_memory(memory, writable=True).address
    size = 31_337
    pieces = [(address + n * 65_536 + n, n * 65_536, size) for n in range(100)]
    assert upstream("batch", opcode="read", segment=ours.segment_name, pieces=pieces)["code"] == 0
    for there, here, length in pieces[::9]:
        at = there - address
        assert upstream("hash", at=here, length=length)["sha256"] == sha(memoryview(memory)[at : at + length])
    assert upstream("threads", segment=ours.segment_name, pieces=pieces, count=4)["code"] == 0
    upstream("fill", seed=5, at=0, length=100 * 65_536)
    assert upstream("batch", opcode="write", segment=ours.segment_name, pieces=pieces)["code"] == 0
    new = known(5, 100 * 65_536)

    def applied() -> bool:
        return all(memory[p[0] - address :][: p[2]] == new[p[1] : p[1] + p[2]] for p in pieces)

    assert eventually(upstream, applied)


def test_we_read_and_write_its(upstream: Upstream, ours: TransferEngine) -> None:
    upstream("fill", seed=7, at=0, length=CAPACITY // 2)
    data = known(7, CAPACITY // 2)
    segment = ours.open_segment(upstream.segment)
    assert (upstream.address, upstream.capacity) in [(each.address, each.length) for each in segment.buffers]
    for size in SIZES:
        for at in (0, 13):
            got = bytearray(size)
            ours.read(got, segment, upstream.address + at)
            assert got == data[at : at + size]
        ours.write(known(size, size), segment, upstream.address + CAPACITY // 2 + 11)
        assert upstream("hash", at=CAPACITY // 2 + 11, length=size)["sha256"] == sha(known(size, size))


def test_we_are_refused_beyond_its(upstream: Upstream, ours: TransferEngine) -> None:
    segment = ours.open_segment(upstream.segment)
    before = upstream("hash", at=0, length=CAPACITY)
    for address, length in [(4096, 10), (upstream.address - 1, 10), (upstream.address + CAPACITY - 5, 10)]:
        with pytest.raises(RangeRefused):
            ours.read(bytearray(length), segment, address)
        with pytest.raises(RangeRefused):
            ours.write(bytes(length), segment, address)
    with pytest.raises(RangeRefused):
        ours.write(bytes(8 << 20), segment, upstream.address + CAPACITY - 5)
    assert upstream("hash", at=0, length=CAPACITY) == before


def test_we_read_and_write_many_at_once(upstream: Upstream, ours: TransferEngine) -> None:
    upstream("fill", seed=9, at=0, length=8 << 20)
    data = known(9, 8 << 20)
    segment = ours.open_segment(upstream.segment)
    got = bytearray(8 << 20)
    size = 31_337
    reads = [
        TransferRequest(Opcode.READ, got, segment, upstream.address + n * 65_536 + n, size, n * 65_536)
        for n in range(100)
    ]
    writes = [
        TransferRequest(Opcode.WRITE, data, segment, upstream.address + (16 << 20) + n * 65_536 + n, size, n)
        for n in range(100)
    ]
    mixed = [each for pair in zip(reads, writes, strict=True) for each in pair]
    parts = [mixed[n::4] for n in range(4)]
    batches: list[bool] = []

    def submit(part: list[TransferRequest]) -> None:
        batch = ours.submit_transfer(part)
        batches.append(batch.wait(60))
        batch.raise_failed()

    threads = [threading.Thread(target=submit, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert batches == [True] * 4
    for n in range(100):
        assert got[n * 65_536 : n * 65_536 + size] == data[n * 65_537 : n * 65_537 + size]
        answer = upstream("hash", at=(16 << 20) + n * 65_537, length=size)
        assert answer["sha256"] == sha(data[n : n + size])


def test_notifications_and_probes(upstream: Upstream, ours: TransferEngine) -> None:
    memory = ours.register_memory(bytearray(10), writable=True)
    answer = upstream("notify", segment=ours.segment_name, address=memory.address, name="layer-3", text="sent")
    assert answer["code"] == 0
    assert upstream("probe", segment=ours.segment_name)["code"] == 0
    assert ours.notifications() == [("layer-3", "sent")]
    segment = ours.open_segment(upstream.segment)
    assert ours.probe(segment) > 0
    ours.notify(segment, "layer-4", "stored")
    assert upstream("notified")["notifications"] == [["layer-4", "stored"]]


def test_the_largest(installed: Wheel) -> None:
    upstream = Upstream(installed, P2PHANDSHAKE, LARGEST)
    with TransferEngine() as ours:
        memory = bytearray(known(1, 1 << 20) * (LARGEST >> 20))
        whole = sha(memory)
        address = ours.register_memory(memory, writable=True).address
        answer = upstream("read", segment=ours.segment_name, address=address, at=0, length=LARGEST)
        assert answer == {"code": 0, "sha256": whole}
        memory[:] = bytes(LARGEST)
        segment = ours.open_segment(upstream.segment)
        ours.read(memory, segment, upstream.address)
        assert sha(memory) == whole
        memory[:10] = b"0123456789"
        ours.write(memory, segment, upstream.address)
        assert upstream("hash", at=0, length=LARGEST)["sha256"] == sha(memory)
        memory[:] = bytes(LARGEST)
        assert upstream("write", segment=ours.segment_name, address=address, at=0, length=LARGEST)["code"] == 0
        whole = upstream("hash", at=0, length=LARGEST)["sha256"]
        assert eventually(upstream, lambda: sha(memory) == whole)
    upstream.close()
