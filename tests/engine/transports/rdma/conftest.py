"""Two segments on a fabric of fake devices: the logic of both sides runs, over real handshakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engine.config.settings import EngineSettings
from engine.serving.segment_server import SegmentServer
from engine.topology.model import Topology
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.reader.transport import RdmaTransport
from engine.transports.rdma.verbs.fake_verbs import Fabric, FakeDevice, FakeVerbs


@pytest.fixture
def fabric() -> Fabric:
    return Fabric([FakeDevice("a0", "10.1.0.1"), FakeDevice("b0", "10.1.0.2")])


@pytest.fixture
def open_nics(fabric: Fabric) -> Iterator[Callable[..., Nics]]:
    """Opens the named devices of the fabric, all settings default."""
    opened: list[Nics] = []

    def make(*devices: str, remaps: bool = True, **settings: object) -> Nics:
        verbs = FakeVerbs(fabric, devices, remaps=remaps)
        nics = Nics(verbs, EngineSettings(**settings), topology=Topology)
        opened.append(nics)
        return nics

    yield make
    for nics in opened:
        nics.close()


@pytest.fixture
def owner(open_nics: Callable[..., Nics]) -> Iterator[SegmentServer]:
    with SegmentServer(rdma=open_nics("b0")) as server:
        yield server


@pytest.fixture
def reader(open_nics: Callable[..., Nics]) -> Iterator[RdmaTransport]:
    transport = RdmaTransport(open_nics("a0"), connect_timeout=60, stall_timeout=60)
    yield transport
    transport.close()
