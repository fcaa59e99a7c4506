"""The key of a segment as bytes."""

from __future__ import annotations

import pytest

from engine.errors import RemoteProtocolError
from engine.protocol import wire
from engine.protocol.exchange import RequestReader
from engine.protocol.key import KEY_ADDRESS, KEY_BYTES, is_key, new_key, same_key, showing, shows_key


def test_a_key_is_shown_as_a_request_that_every_server_can_parse() -> None:
    key = new_key()
    request = wire.unpack_request(showing(key), peer="p")
    assert request == wire.Request(wire.Opcode.WRITE, KEY_ADDRESS, KEY_BYTES, 1)
    assert shows_key(request)
    assert showing(key)[wire.HEADER_LENGTH :] == bytes.fromhex(key)


def test_keys_are_not_made_twice() -> None:
    assert len({new_key() for _ in range(100)}) == 100


def test_no_key_is_shown_as_nothing() -> None:
    assert showing("") == b""


@pytest.mark.parametrize("text", ["", "00" * KEY_BYTES])
def test_what_can_be_a_key(text: str) -> None:
    assert is_key(text)


@pytest.mark.parametrize("text", ["0", "00", "00" * 17, "zz" * KEY_BYTES, "é" * 32, None, 7, b"00" * KEY_BYTES])
def test_what_cannot(text: object) -> None:
    assert not is_key(text)


def test_a_key_is_the_same_as_bytes_and_as_text() -> None:
    key = new_key()
    assert same_key(key, key)
    assert same_key(bytes.fromhex(key), key)
    for other in (new_key(), bytes(KEY_BYTES), "", b"", None, 3, "\udc80"):
        assert not same_key(other, key)


def test_a_reader_gives_the_key_once_all_of_it_has_come() -> None:
    key = new_key()
    reader = RequestReader(peer="p")
    data = showing(key) + wire.pack_request(4096, 7)
    for at in range(len(showing(key)) - 1):
        reader.feed(data[at : at + 1])
        assert reader.key() is None
    reader.feed(data[len(showing(key)) - 1 :])
    assert reader.key() == bytes.fromhex(key)
    assert reader.next() == wire.Request(wire.Opcode.READ, 4096, 7, 2)


def test_a_reader_leaves_another_request_where_it_is() -> None:
    reader = RequestReader(peer="p")
    reader.feed(wire.pack_request(4096, 7))
    assert reader.key() == b""
    assert reader.next() == wire.Request(wire.Opcode.READ, 4096, 7, 2)


def test_a_reader_of_keys_takes_no_garbage() -> None:
    reader = RequestReader(peer="p")
    reader.feed(b"\xff" * wire.HEADER_LENGTH)
    with pytest.raises(RemoteProtocolError):
        reader.key()
