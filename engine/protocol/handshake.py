"""Mooncake's handshake messages as bytes: framing and JSON. No sockets here.

Source: upstream's ``common.h`` (``writeString``, ``readString``) and ``transfer_metadata_plugin.cpp``. A message is a
little-endian u64 L, then one type byte, then L - 1 bytes of JSON. A first byte above 3 is the old form: it has no type
byte, and all L bytes are JSON; it stands for a Connection request. One request a TCP connection; the answer has the
request's form and type.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Any

from engine.errors import RemoteProtocolError

MAX_MESSAGE = 1 << 20
"""Largest L that is accepted, bytes; upstream's default of ``MC_HANDSHAKE_MAX_LENGTH``."""

MAX_DEPTH = 64
"""Deepest nesting of JSON that is parsed; upstream's messages have three levels."""

_LENGTH = Struct("<Q")


class MessageType(IntEnum):
    """What a message is about."""

    CONNECTION = 0
    METADATA = 1
    NOTIFY = 2
    PROBE = 3


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``old_form`` says that it came, or goes, without the type byte (and is a Connection)."""

    type: MessageType
    body: dict[str, Any] = field(default_factory=dict)
    old_form: bool = False


def encode(message: Message) -> bytes:
    """The frame of a message. Raises ``ValueError`` when it is longer than ``MAX_MESSAGE``."""
    payload = json.dumps(message.body, separators=(",", ":")).encode()
    if not message.old_form:
        payload = bytes((message.type,)) + payload
    if len(payload) > MAX_MESSAGE:
        detail = f"a handshake message of {len(payload)} bytes; at most {MAX_MESSAGE} are allowed"
        raise ValueError(detail)
    return _LENGTH.pack(len(payload)) + payload


class Decoder:
    """Collects the bytes of one message."""

    __slots__ = ("_data", "_peer")

    def __init__(self, *, peer: str) -> None:
        """``peer`` is named in errors."""
        self._peer = peer
        self._data = bytearray()

    def feed(self, data: bytes | memoryview) -> Message | None:
        """The message, once all of it is there. Raises ``RemoteProtocolError``; bytes after it are ignored."""
        self._data += data
        if len(self._data) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._data)
        if not 0 < length <= MAX_MESSAGE:
            raise RemoteProtocolError(peer=self._peer, detail=f"a handshake message of {length} bytes")
        end = _LENGTH.size + length
        if len(self._data) < end:
            return None
        return decode_payload(bytes(self._data[_LENGTH.size : end]), peer=self._peer)


def decode_payload(payload: bytes, *, peer: str) -> Message:
    """The message in the L bytes after the length. Raises ``RemoteProtocolError``."""
    if not payload:
        raise RemoteProtocolError(peer=peer, detail="an empty handshake message")
    if payload[0] > max(MessageType):
        return Message(MessageType.CONNECTION, _parse(payload, peer), old_form=True)
    return Message(MessageType(payload[0]), _parse(payload[1:], peer))


def _parse(text: bytes, peer: str) -> dict[str, Any]:
    # json's own recursion limit depends on the caller's stack, so depth is bounded before it is called.
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _deep(text):
        raise RemoteProtocolError(peer=peer, detail="JSON nested too deeply")
    try:
        body = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise RemoteProtocolError(peer=peer, detail="a handshake message that is not JSON") from None
    if not isinstance(body, dict):
        raise RemoteProtocolError(peer=peer, detail="a handshake message that is no JSON object")
    return body


def _deep(text: bytes) -> bool:
    """Whether brackets nest beyond ``MAX_DEPTH``; those inside strings count too."""
    depth = 0
    for byte in text:
        if byte in b"{[":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif byte in b"}]":
            depth -= 1
    return False
