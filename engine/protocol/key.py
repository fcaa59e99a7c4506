"""The key of a segment: what a peer shows before it may read. Bytes only, no sockets.

Addresses of data are random, but a large buffer is a large part of their space: one of 100 GB is met by one guess in a
thousand. So a segment that is not for everybody has a key too, and those who may read are told it with the address.

Mooncake's protocol has no words for that. A key is shown as what every server can parse: the first request of a
connection is a WRITE of version 1, which is not answered, to an address beyond every segment. Over RDMA it goes with
the set-up of queue pairs.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from engine.protocol.wire import HEADER_LENGTH, Opcode, Request, pack_request

KEY_BYTES: Final = 16
"""128 random bits."""

KEY_ADDRESS: Final = (1 << 64) - (1 << 12)
"""Where a key is written; segments lie below 2^47."""


def new_key() -> str:
    """A key, as text."""
    return secrets.token_hex(KEY_BYTES)


def showing(key: str) -> bytes:
    """The request that shows a key; nothing for none. Raises ``ValueError`` for what is no key."""
    if not key:
        return b""
    data = bytes.fromhex(key)
    if len(data) != KEY_BYTES:
        raise ValueError("no key")
    return pack_request(KEY_ADDRESS, KEY_BYTES, opcode=Opcode.WRITE, version=1) + data


def is_key(text: object) -> bool:
    """Whether it can be a key, or none."""
    try:
        return isinstance(text, str) and len(showing(text)) in {0, HEADER_LENGTH + KEY_BYTES}
    except ValueError:
        return False


def shows_key(request: Request) -> bool:
    """Whether a key follows this header."""
    return request.address == KEY_ADDRESS and request.length == KEY_BYTES and request.opcode is Opcode.WRITE


def same_key(shown: object, key: str) -> bool:
    """Whether somebody has shown the key, as bytes or as text; takes as long for each."""
    text = shown.hex() if isinstance(shown, bytes) else shown
    return isinstance(text, str) and hmac.compare_digest(text.encode("utf-8", "replace"), key.encode())
