"""The paths to a node, as they are found and as a peer tells them."""

from __future__ import annotations

import pytest

from engine.errors import PeerUnreachable, TransportUnavailable
from engine.transports.base import Channel, PeerAddress, Transport
from engine.transports.mock import MockTransport
from p2pstore.paths import MAX_TEXT, Path, check_paths, from_json

PEER = PeerAddress("h:1", "h", 2)


class Unusable(MockTransport):
    def usable(self, peer: PeerAddress) -> str:
        return "the peer is on another host"


class Unreachable(MockTransport):
    def open(self, peer: PeerAddress) -> Channel:
        raise PeerUnreachable(peer=peer.segment, detail="Connection refused")


def test_each_transport_is_tried() -> None:
    transports: dict[str, Transport] = {"local": Unusable(), "rdma": MockTransport(), "tcp": Unreachable()}
    local, rdma, tcp = check_paths(PEER, transports.__getitem__, lambda peer, name: transports[name].open(peer))
    assert local == Path("local", works=False, detail="the peer is on another host")
    assert (rdma.transport, rdma.works, rdma.detail) == ("rdma", True, "")
    assert (tcp.transport, tcp.works) == ("tcp", False)
    assert "Connection refused" in tcp.detail


def test_a_transport_that_there_is_not_is_no_path() -> None:
    def none(name: str) -> Transport:
        raise TransportUnavailable(transport=name, detail="there is none")

    assert not any(path.works for path in check_paths(PEER, none, lambda peer, name: none(name).open(peer)))


def test_they_go_over_the_wire() -> None:
    paths = [Path("rdma", works=True, seconds=0.25), Path("tcp", works=False, detail="x")]
    assert from_json([path.to_json() for path in paths]) == paths
    (cut,) = from_json([{"transport": "tcp", "detail": "x" * 10_000}]) or []
    assert len(cut.detail) == MAX_TEXT


@pytest.mark.parametrize(
    "value",
    [None, {}, "x", [5], [{}], [{"transport": "pigeon"}], [{"transport": "tcp", "seconds": "1"}],
     [{"transport": "tcp", "detail": 5}], [{"transport": "tcp"}] * 4],
)  # fmt: skip
def test_what_is_none_of_ours_is_refused(value: object) -> None:
    assert from_json(value) is None
