"""The wire parses everything or blames the peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.protocol import wire

U64 = st.integers(0, 2**64 - 1)


def test_header_is_upstreams() -> None:
    packed = wire.pack_request(0x1122334455667788, 0x0102, opcode=wire.Opcode.WRITE, version=2)
    assert packed == bytes.fromhex("020100000000000088776655443322118100000000000000")
    assert wire.pack_request(1, 1, version=1)[16] == 0
    assert wire.pack_status(1) == bytes.fromhex("010000005654434d")


@given(U64, U64, st.sampled_from(wire.Opcode), st.sampled_from([1, 2]), st.binary(min_size=7, max_size=7))
def test_round_trip_ignores_padding(address: int, length: int, opcode: wire.Opcode, version: int, pad: bytes) -> None:
    packed = wire.pack_request(address, length, opcode=opcode, version=version)[:17] + pad
    assert wire.unpack_request(packed, peer="p") == wire.Request(opcode, address, length, version)


@given(st.binary(min_size=24, max_size=24))
def test_any_header_parses_or_blames_the_peer(data: bytes) -> None:
    try:
        request = wire.unpack_request(data, peer="p")
    except RemoteProtocolError:
        assert data[16] & 0x7F > 1
    else:
        packed = wire.pack_request(request.address, request.length, opcode=request.opcode, version=request.version)
        assert packed[:17] == data[:17]


@given(st.binary(max_size=23))
def test_short_header_blames_the_peer(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.unpack_request(data, peer="p")


@given(st.integers(0, 2**32 - 1))
def test_status_round_trip(code: int) -> None:
    assert wire.unpack_status(wire.pack_status(code), peer="p") == code


@given(st.binary(max_size=9))
def test_any_status_parses_or_blames_the_peer(data: bytes) -> None:
    try:
        wire.unpack_status(data, peer="p")
    except RemoteProtocolError:
        assert data[4:] != b"VTCM"
    else:
        assert data[4:] == b"VTCM"
