"""How nodes prove to one another that they know the cluster secret, without sending it.

Each request carries the time, a nonce, and an HMAC-SHA256 over both, the method and the path with its query. A request
older than ``MAX_SKEW`` is refused. Requests between nodes read, or have something read again, so that a replay within
that time learns what its first sender learned, and changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

HEADER = "X-Mooncake-Auth"

MAX_SKEW = 300.0
"""Seconds by which two nodes' clocks may differ."""


def sign(secret: bytes, method: str, path: str, *, now: float | None = None) -> str:
    """The header's value for a request."""
    moment = f"{time.time() if now is None else now:.3f}"
    nonce = secrets.token_hex(8)
    return f"{moment} {nonce} {_mac(secret, method, path, moment, nonce)}"


def verify(secret: bytes, header: str, method: str, path: str, *, now: float | None = None) -> bool:
    """Whether the header was made with ``secret``, for this request, lately."""
    parts = header.split(" ")
    if len(parts) != 3:
        return False
    moment, nonce, mac = parts
    try:
        age = (time.time() if now is None else now) - float(moment)
    except ValueError:
        return False
    expected = _mac(secret, method, path, moment, nonce)
    return hmac.compare_digest(mac.encode("utf-8", "replace"), expected.encode()) and abs(age) <= MAX_SKEW


def _mac(secret: bytes, method: str, path: str, moment: str, nonce: str) -> str:
    text = f"mooncake/v1\n{method.upper()}\n{path}\n{moment}\n{nonce}"
    return hmac.new(secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
