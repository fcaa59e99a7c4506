"""Handshake frames parse or blame the peer, however they are cut."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.protocol.handshake import MAX_DEPTH, MAX_MESSAGE, Decoder, Message, MessageType, encode

BODIES = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(), max_size=4)


def test_frame_is_upstreams() -> None:
    assert encode(Message(MessageType.PROBE, {})) == b"\x03" + bytes(7) + b"\x03{}"
    assert encode(Message(MessageType.CONNECTION, {}, old_form=True)) == b"\x02" + bytes(7) + b"{}"


@given(st.sampled_from(MessageType), BODIES, st.booleans(), st.data())
def test_round_trip_in_pieces(kind: MessageType, body: dict[str, object], old: bool, data: st.DataObject) -> None:
    message = Message(MessageType.CONNECTION if old else kind, body, old_form=old)
    frame = encode(message)
    cut = data.draw(st.integers(0, len(frame) - 1))
    decoder = Decoder(peer="p")
    assert decoder.feed(frame[:cut]) is None
    assert decoder.feed(frame[cut:]) == message


@given(st.binary(max_size=64), st.integers(-3, 3))
def test_any_bytes_parse_or_blame_the_peer(payload: bytes, wrong_by: int) -> None:
    frame = struct.pack("<Q", max(0, len(payload) + wrong_by)) + payload
    try:
        message = Decoder(peer="p").feed(frame)
    except RemoteProtocolError:
        return
    else:
        assert message is None or isinstance(message.body, dict)


@given(st.binary(min_size=8, max_size=16))
def test_any_length_is_bounded(data: bytes) -> None:
    try:
        message = Decoder(peer="p").feed(data)
    except RemoteProtocolError:
        return
    assert 0 < struct.unpack_from("<Q", data)[0] <= MAX_MESSAGE
    assert message is None or isinstance(message.body, dict)


@pytest.mark.parametrize(
    "payload",
    [b"\x01[]", b"\x01nul", b"\x01\xff", b"\x04", b"hello", b"\x01" + b"[" * 100_000, b"\x01" + b'{"a":' * 9999],
)
def test_bad_payloads_blame_the_peer(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Decoder(peer="p").feed(struct.pack("<Q", len(payload)) + payload)


def test_wide_json_is_no_deep_json() -> None:
    body = {"buffers": [{"name": "x"} for _ in range(MAX_DEPTH * 10)]}
    payload = b"\x01" + json.dumps(body).encode()
    message = Decoder(peer="p").feed(struct.pack("<Q", len(payload)) + payload)
    assert message == Message(MessageType.METADATA, body)


def test_too_long_to_send() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode(Message(MessageType.NOTIFY, {"notify_msg": "x" * MAX_MESSAGE}))
