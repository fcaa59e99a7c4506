"""How nodes prove to one another that they know the cluster secret, without sending it.

Each request carries the time, the number that its sender gave it, and an HMAC-SHA256 over both, the method, the path
with its query, and the *realm*: a random name that each server has for as long as it lives, and tells everybody. So
what somebody has recorded is good for no other node, nor for the same one once it was started again; and the number
makes it good for that one only once (``p2pstore.cluster.replays``). A request older than ``MAX_SKEW`` is refused
besides, so that older numbers need not be remembered.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
import time
from collections.abc import Sequence

from p2pstore.cluster.replays import Replays

HEADER = "X-Mooncake-Auth"

REALM_HEADER = "X-Mooncake-Realm"
"""What a server tells its realm in: with its health, and with each refusal."""

REFUSAL_HEADER = "X-Mooncake-Refusal"
"""Why a request was refused: ``CLOCK``, or something that the signature's maker has to know."""

CLOCK = "clock"
"""The secret is right, and the clocks differ."""

REPLAY = "replay"
"""The secret is right, and the request has been here before."""

SECRET = "secret"  # noqa: S105 - a word
"""Whoever asks does not know the secret, or does not know this server."""

MAX_SKEW = 300.0
"""Seconds by which two nodes' clocks may differ."""

REALM_BYTES = 16

MAX_HEADER = 512
"""Characters of a header that are looked at."""

_PARTS = 4


class Signer:
    """Signs the requests of one client."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def sign(self, secret: bytes, method: str, path: str, realm: str, *, now: float | None = None) -> str:
        """The header's value for a request to the server of that realm."""
        moment = f"{time.time() if now is None else now:.3f}"
        number = str(next(self._numbers))
        return f"{moment} {self._name} {number} {_mac(secret, method, path, realm, moment, self._name, number)}"


class Gate:
    """Lets requests in that were signed for this process, lately, and that have not been here before."""

    def __init__(self) -> None:
        self.realm = secrets.token_hex(REALM_BYTES)
        self._replays = Replays(2 * MAX_SKEW)

    def refusal(self, good: Sequence[bytes], header: str, method: str, path: str, *, now: float | None = None) -> str:
        """Why a request is refused; empty where it is let in. ``good`` are the secrets that hold."""
        now = time.time() if now is None else now
        parts = header.split(" ") if len(header) <= MAX_HEADER else []
        if len(parts) != _PARTS:
            return SECRET
        moment, name, number, mac = parts
        shown = mac.encode("utf-8", "replace")
        expected = [_mac(each, method, path, self.realm, moment, name, number).encode() for each in good]
        if not any([hmac.compare_digest(shown, each) for each in expected]):  # noqa: C419 - each takes its time
            return SECRET
        # It was made by somebody who knows the secret: from here on its parts are what they should be.
        when = float(moment)
        if abs(now - when) > MAX_SKEW:
            return CLOCK
        return "" if self._replays.is_new(name, int(number), when, now) else REPLAY


def _mac(secret: bytes, method: str, path: str, realm: str, moment: str, name: str, number: str) -> str:
    text = f"mooncake/v2\n{realm}\n{method.upper()}\n{path}\n{moment}\n{name}\n{number}"
    return hmac.new(secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
