"""Descriptors parse by upstream's rules or blame the peer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.protocol.segment import BufferDescriptor, SegmentDescriptor

GOOD: dict[str, Any] = {
    "name": "127.0.0.1:15000",
    "protocol": "tcp",
    "tcp_data_port": 16000,
    "tcp_proto_version": 2,
    "timestamp": "2026-01-01 00:00:00.000000",
    "buffers": [{"name": "cpu:0", "addr": 0x10000, "length": 4096}],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def test_round_trip() -> None:
    parsed = SegmentDescriptor.from_json(GOOD, peer="p")
    assert parsed.buffers == (BufferDescriptor("cpu:0", 0x10000, 4096),)
    assert parsed.to_json() == GOOD


def test_what_upstream_leaves_out_or_adds() -> None:
    data = {key: GOOD[key] for key in ("name", "protocol", "tcp_data_port")}
    parsed = SegmentDescriptor.from_json(
        {**data, "buffers": None, "rdma_server_name": "", "tcp_data_host": ""}, peer="p"
    )
    assert parsed.tcp_proto_version == 1
    assert parsed.buffers == ()


@pytest.mark.parametrize(
    "buffer",
    [
        {"name": "", "addr": 1, "length": 1},
        {"name": "a", "addr": 0, "length": 1},
        {"name": "a", "addr": 1, "length": 0},
        {"name": "a", "addr": -1, "length": 1},
        {"name": "a", "addr": 2**64 - 1, "length": 2},
        {"name": "a", "addr": True, "length": 2},
        {"addr": 1, "length": 2},
        [],
    ],
)
def test_one_bad_buffer_rejects_the_segment(buffer: object) -> None:
    with pytest.raises(RemoteProtocolError):
        SegmentDescriptor.from_json({**GOOD, "buffers": [*GOOD["buffers"], buffer]}, peer="p")


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_field_parses_or_blames_the_peer(key: str, value: object) -> None:
    try:
        parsed = SegmentDescriptor.from_json({**GOOD, key: value}, peer="p")
    except RemoteProtocolError:
        return
    else:
        assert SegmentDescriptor.from_json(parsed.to_json(), peer="p") == parsed


@given(JSON)
def test_any_json_parses_or_blames_the_peer(data: object) -> None:
    with pytest.raises(RemoteProtocolError):
        SegmentDescriptor.from_json(data, peer="p")
