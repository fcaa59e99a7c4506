"""What an etcd server's or gRPC's error means for the caller; pure.

Source: etcd's ``api/v3rpc/rpctypes/error.go`` for the sentences, which are part of its API.
"""

from __future__ import annotations

import re
from enum import Enum


class FaultKind(Enum):
    """What to do about a failed call."""

    NEVER_SENT = "try another server: this one was not reached, so nothing happened"
    UNKNOWN = "try another server, if the call may be made twice: it may have taken effect"
    TLS = "as NEVER_SENT; and if no other server can be had, the certificates are at fault"
    TOKEN = "log in again, then repeat the call: etcd refused the token"  # noqa: S105 - no password
    REFUSED = "give up: wrong user, password, certificate or permission"
    NO_LEASE = "the lease is gone"
    COMPACTED = "the revision is gone"
    NO_AUTH = "the server knows no users: go on without logging in"
    NO_SPACE = "give up: it takes no writes; 3.5.0 to 3.5.1 no transactions that only read or delete, either"
    MISUSE = "give up: we asked for something that etcd does not allow"


_BY_SENTENCE: tuple[tuple[str, FaultKind], ...] = (
    ("requested lease not found", FaultKind.NO_LEASE),
    ("required revision has been compacted", FaultKind.COMPACTED),
    ("authentication is not enabled", FaultKind.NO_AUTH),
    ("invalid auth token", FaultKind.TOKEN),
    ("revision of auth store is old", FaultKind.TOKEN),
    ("invalid user ID or password", FaultKind.REFUSED),
    ("user name is empty", FaultKind.REFUSED),
    ("user name not found", FaultKind.REFUSED),
    ("permission denied", FaultKind.REFUSED),
    ("failed to connect to all addresses", FaultKind.NEVER_SENT),
    ("received message larger than max", FaultKind.MISUSE),
    ("database space exceeded", FaultKind.NO_SPACE),
)

FROM_SERVER = "etcdserver: "
"""What etcd begins its own errors with; gRPC's have other beginnings."""

_TLS_SENTENCES = (
    "ssl handshake failed",
    "ssl_error_ssl",
    "certificate_verify_failed",
    "not in peer certificate",
    "verification check failed",
    "alert certificate",
    "alert bad certificate",
    "alert unknown ca",
    "tsi_",
    "unwrap failed",
)

_MISUSE_CODES = {"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED"}
_REFUSED_CODES = {"PERMISSION_DENIED", "UNAUTHENTICATED"}


def classify(code: str, details: str) -> FaultKind:
    """The fault behind a gRPC status code's name and its details."""
    lowered = details.lower()
    if any(sentence in lowered for sentence in _TLS_SENTENCES):
        return FaultKind.TLS
    for sentence, fault in _BY_SENTENCE:
        if sentence.lower() in lowered:
            return fault
    if code in _REFUSED_CODES:
        return FaultKind.REFUSED
    return FaultKind.MISUSE if code in _MISUSE_CODES else FaultKind.UNKNOWN


_NOISE = re.compile(
    r"^(etcdserver: |failed to connect to all addresses; last error: [A-Z_]+: (ipv[46]:)?)"
    r"|Failed to connect to remote host: "
    r"|unix:.*: connect failed: addr: unix:.* error: "
)


def tidy(details: str) -> str:
    """The details without gRPC's and etcd's preambles, for people."""
    return _NOISE.sub("", details)
