from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.metadata import records
from engine.metadata.base import MAX_VALUE, RpcEndpoint
from engine.protocol.segment import SegmentDescriptor
from tests.engine.metadata.descriptors import SEGMENTS


def test_keys_are_upstreams() -> None:
    assert records.segment_key("n") == "mooncake/ram/n"
    assert records.segment_key("n", "c") == "mooncake/c/ram/n"
    assert records.segment_key("checkpoint/n", "c") == "mooncake/checkpoint/n"
    assert records.rpc_key("n") == "mooncake/rpc_meta/n"
    assert records.rpc_key("n", "c/") == "mooncake/c/rpc_meta/n"


@given(SEGMENTS)
def test_a_segment_comes_back_as_it_was(segment: SegmentDescriptor) -> None:
    value = records.encode_segment(segment)
    assert value.endswith(b"\n")
    assert records.decode_segment(value, name="n") == segment


@pytest.mark.parametrize("host", ["127.0.0.1", "node-1.example", "::1", "fe80::1%eth0"])
def test_an_address_comes_back_as_it_was(host: str) -> None:
    endpoint = RpcEndpoint(host, 65535)
    value = records.encode_rpc(endpoint)
    assert value == f'{{"ip_or_host_name":"{host}","rpc_port":65535}}\n'.encode()
    assert records.decode_rpc(value, name="n") == endpoint


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str).map(str.encode))
def test_whatever_is_in_a_record_nothing_but_a_peers_fault_is_raised(value: bytes) -> None:
    for decode in (records.decode_segment, records.decode_rpc):
        with contextlib.suppress(RemoteProtocolError):
            decode(value, name="n")


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{", b"3", b"null", b"\xff", b"[" * 100_000, b" " * (MAX_VALUE + 1)], ids=lambda v: v[:4]
)
def test_what_is_no_record_is_refused_and_says_whose_it_is(value: bytes) -> None:
    for decode in (records.decode_segment, records.decode_rpc):
        with pytest.raises(RemoteProtocolError, match=r"peer segment-7 .* metadata record"):
            decode(value, name="segment-7")


@pytest.mark.parametrize("host", [None, 3, "", "a b", "a/b", "[::1]", "a..b", "x" * 64, "h\n"])
def test_no_host_is_taken_that_could_not_be_looked_up(host: object) -> None:
    with pytest.raises(RemoteProtocolError, match="an invalid handshake address"):
        records.decode_rpc(json.dumps({"ip_or_host_name": host, "rpc_port": 1}).encode(), name="n")


@pytest.mark.parametrize("port", [None, 0, -1, 65536, 1.0, "1", True])
def test_no_port_is_taken_that_is_none(port: object) -> None:
    with pytest.raises(RemoteProtocolError, match="an invalid handshake address"):
        records.decode_rpc(json.dumps({"ip_or_host_name": "h", "rpc_port": port}).encode(), name="n")
