from __future__ import annotations

import pytest

from engine.engine import TransferEngine
from engine.errors import PeerUnreachable, UsageError
from engine.metadata.base import RpcEndpoint
from engine.metadata.handshake import HandshakeDirectory
from tests.engine.metadata.descriptors import SEGMENT
from tests.ports import closed_port

DIRECTORY = HandshakeDirectory(timeout=30)


def test_a_name_is_where_the_segment_is() -> None:
    assert DIRECTORY.endpoint("node:7") == RpcEndpoint("node", 7)
    assert DIRECTORY.endpoint("[::1]:7") == RpcEndpoint("::1", 7)


@pytest.mark.parametrize("name", ["", "node", "::1", "node:0", "node:x", "checkpoint/7", "a..b:7", "x" * 64 + ":7"])
def test_a_name_that_is_no_address_is_the_callers_fault(name: str) -> None:
    with pytest.raises(UsageError, match="is no HOST:PORT"):
        DIRECTORY.endpoint(name)
    with pytest.raises(UsageError, match="is no HOST:PORT"):
        DIRECTORY.resolve(name)


def test_a_segment_tells_what_it_has_itself() -> None:
    with TransferEngine("127.0.0.1") as engine:
        memory = engine.register_memory(bytearray(8), name="m")
        found = DIRECTORY.resolve(engine.segment_name)
        assert (found.host, found.rpc_port) == ("127.0.0.1", engine.rpc_port)
        assert [(each.name, each.address) for each in found.descriptor.buffers] == [("m", memory.address)]


def test_a_segment_that_is_not_there() -> None:
    with pytest.raises(PeerUnreachable):
        DIRECTORY.resolve(f"127.0.0.1:{closed_port()}")


def test_there_is_nobody_to_tell() -> None:
    DIRECTORY.publish(SEGMENT, RpcEndpoint("127.0.0.1", 7))
    DIRECTORY.withdraw("never published")
    DIRECTORY.close()
    DIRECTORY.close()
