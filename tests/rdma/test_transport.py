"""The transport on real devices: dead peers, withdrawn memory, and nothing left after a thousand transfers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config.settings import EngineSettings
from engine.errors import PeerUnreachable, RangeRefused
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.memory.region import Region
from engine.serving.segment_server import SegmentServer
from engine.transports.base import PeerAddress
from engine.transports.into_memory import IntoMemory
from engine.transports.rdma.reader.transport import RdmaTransport, open_nics
from tests.p2pstore.samples import MIB, content
from tests.rdma.conftest import OURS, THEIRS, descriptors, resources

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reader() -> Iterator[RdmaTransport]:
    transport = RdmaTransport(lambda: open_nics(devices=OURS))
    yield transport
    transport.close()


class Waiting(IntoMemory):
    """A sink that has something happen once it has the first bytes."""

    def __init__(self, view: memoryview, act: Callable[[], object]) -> None:
        super().__init__(view)
        self._act: Callable[[], object] | None = act

    def filled(self, count: int) -> None:
        super().filled(count)
        if self._act is not None:
            self._act()
            self._act = None


def test_a_peer_that_is_killed_in_the_middle(reader: RdmaTransport, tmp_path: Path) -> None:
    data = content(32 * MIB)
    (tmp_path / "f").write_bytes(data)
    command = [sys.executable, "-m", "tests.rdma.holder", str(tmp_path / "f"), str(len(data)), THEIRS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        peer = PeerAddress(**told["peer"])

        def kill() -> None:
            process.kill()
            process.wait()

        channel = reader.open(peer)
        channel.submit(told["address"], len(data))
        with pytest.raises(PeerUnreachable):
            channel.receive(Waiting(memoryview(bytearray(len(data))), kill))
        channel.close()
        with pytest.raises(PeerUnreachable):
            reader.open(peer)


def test_memory_that_is_withdrawn_in_the_middle(reader: RdmaTransport) -> None:
    data = bytearray(content(32 * MIB))
    with SegmentServer(rdma=THEIRS) as server:
        address = server.register(MemoryBuffer("m", data))

        def withdraw() -> None:
            assert server.unregister(address)
            data.append(1)  # its owner does with it what it likes

        channel = reader.open(server.address_of_self())
        channel.submit(address, 32 * MIB)
        with pytest.raises(RangeRefused):
            channel.receive(Waiting(memoryview(bytearray(32 * MIB)), withdraw))
        channel.close()


def test_a_wait_ends_when_the_channel_is_closed(reader: RdmaTransport, tmp_path: Path) -> None:
    data = content(32 * MIB)
    with SegmentServer(rdma=THEIRS) as server:
        address = server.register(MemoryBuffer("m", data))
        channel = reader.open(server.address_of_self())
        into = bytearray(len(data))
        channel.submit(address, len(data), Region.of(into))
        closer = threading.Timer(0.05, channel.close)
        closer.start()
        try:
            while True:
                channel.receive(IntoMemory(memoryview(into)))
                channel.submit(address, len(data), Region.of(into))
        except PeerUnreachable:
            pass
        closer.join()
        into[:] = bytes(len(into))
        time.sleep(0.1)
        assert not any(into[::4096])  # no device writes after the close


def test_a_thousand_transfers_leave_nothing(tmp_path: Path) -> None:
    data = content(300_000)
    (tmp_path / "f").write_bytes(data)
    before, open_before = resources(), descriptors()
    settings = EngineSettings(queue_pairs=1)
    theirs = open_nics(settings, devices=THEIRS)
    server = SegmentServer(rdma=theirs)
    address = server.register(FilesBuffer("f", [FileSpan(str(tmp_path / "f"), len(data))]))
    nics = open_nics(settings, devices=OURS)
    reader = RdmaTransport(nics)
    into = bytearray(len(data))
    steady: dict[str, int] = {}
    for number in range(100):
        channel = reader.open(server.address_of_self())
        for _ in range(10):
            into[:8] = bytes(8)
            channel.submit(address, len(data))
            channel.receive(IntoMemory(memoryview(into)))
            assert into == data
        channel.close()
        until = time.monotonic() + 30
        while server.rdma_sessions and time.monotonic() < until:
            time.sleep(0.001)
        if number == 10:
            steady, open_then = resources(), descriptors()
    assert resources() == steady
    assert descriptors() == open_then
    reader.close()
    server.close()
    nics.close()
    theirs.close()
    assert resources() == before
    # The cache of open files keeps one.
    assert descriptors() <= open_before + 1
