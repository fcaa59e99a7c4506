"""The descriptor protocol's packets: what is packed comes back, and what a stranger sends is refused in one way."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.protocol.local_socket import (
    MAX_PACKET,
    MEMORY,
    DescriptorRequest,
    Grant,
    pack_error,
    peer_uid,
    short_path,
    unpack_answer,
)

U64 = st.integers(0, (1 << 64) - 1)


@given(U64, U64)
def test_a_request_comes_back(address: int, length: int) -> None:
    request = DescriptorRequest(address, length)
    packet = request.pack()
    assert len(packet) <= MAX_PACKET
    assert DescriptorRequest.unpack(packet, peer="p") == request


@given(U64, U64.filter(bool), st.booleans())
def test_a_grant_comes_back(offset: int, length: int, more: bool) -> None:
    grant = Grant(offset, length, more)
    assert unpack_answer(grant.pack(), peer="p") == grant


def test_a_refusal_comes_back() -> None:
    assert unpack_answer(pack_error(MEMORY), peer="p") == MEMORY


@given(st.binary(max_size=2 * MAX_PACKET))
def test_any_bytes_are_read_or_refused_as_the_peers_fault(packet: bytes) -> None:
    for read in (lambda: DescriptorRequest.unpack(packet, peer="p"), lambda: unpack_answer(packet, peer="p")):
        with contextlib.suppress(RemoteProtocolError):
            read()


@pytest.mark.parametrize(
    "packet",
    [
        b'{"address": -1, "length": 1}',
        b'{"address": 18446744073709551616, "length": 1}',
        b'{"address": true, "length": 1}',
        b'{"address": 1.0, "length": 1}',
        b'{"length": 1}',
        b"[]",
        b"[" * (MAX_PACKET - 1),
    ],
)
def test_numbers_that_are_none(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        DescriptorRequest.unpack(packet, peer="p")


def test_a_descriptor_for_no_bytes_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="no bytes"):
        unpack_answer(Grant(0, 0, more=False).pack(), peer="p")


def test_a_long_path_fits_into_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server, short_path(deep / "s") as name:
        server.bind(name)
    assert (deep / "s").is_socket()


def test_the_kernel_says_who_is_on_the_other_side() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        assert peer_uid(left) == os.getuid()
