"""Sentences as gRPC 1.60 to 1.85 and etcd 3.4 and 3.5 were seen to say them."""

from __future__ import annotations

import pytest

from engine.etcd.faults import FaultKind, classify, tidy

CONNECT = "failed to connect to all addresses; last error: "


@pytest.mark.parametrize(
    ("code", "details", "fault"),
    [
        (
            "UNAVAILABLE",
            CONNECT + "UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
            FaultKind.NEVER_SENT,
        ),
        ("UNAVAILABLE", CONNECT + "UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", FaultKind.NEVER_SENT),
        ("UNAVAILABLE", CONNECT + "UNAVAILABLE: ipv4:127.0.0.1:1: Unwrap failed (TSI_DATA_CORRUPTED)", FaultKind.TLS),
        (
            "UNAVAILABLE",
            CONNECT
            + "UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL "
            "routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
            FaultKind.TLS,
        ),
        (
            "UNAVAILABLE",
            CONNECT
            + "UNKNOWN: ipv4:127.0.0.1:1: Custom verification check failed with error: UNAUTHENTICATED: Hostname "
            "Verification Check failed.",
            FaultKind.TLS,
        ),
        ("UNAVAILABLE", "Stream removed (recvmsg:Connection reset by peer (104))", FaultKind.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: request timed out", FaultKind.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: no leader", FaultKind.UNKNOWN),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", FaultKind.UNKNOWN),
        ("NOT_FOUND", "etcdserver: requested lease not found", FaultKind.NO_LEASE),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted", FaultKind.COMPACTED),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", FaultKind.TOKEN),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", FaultKind.TOKEN),
        ("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password", FaultKind.REFUSED),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", FaultKind.REFUSED),
        ("PERMISSION_DENIED", "etcdserver: permission denied", FaultKind.REFUSED),
        ("FAILED_PRECONDITION", "etcdserver: authentication is not enabled", FaultKind.NO_AUTH),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", FaultKind.MISUSE),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (2097170 vs. 2097152)", FaultKind.MISUSE),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", FaultKind.NO_SPACE),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", FaultKind.UNKNOWN),
        ("DATA_LOSS", "etcdserver: corrupt cluster", FaultKind.UNKNOWN),
    ],
)
def test_faults(code: str, details: str, fault: FaultKind) -> None:
    assert classify(code, details) is fault


def test_people_see_no_preambles() -> None:
    refused = CONNECT + "UNKNOWN: ipv4:127.0.0.1:2379: Failed to connect to remote host: Connection refused"
    assert tidy(refused) == "127.0.0.1:2379: Connection refused"
    assert tidy("etcdserver: permission denied") == "permission denied"
    socket = CONNECT + "FAILED_PRECONDITION: unix:/h/etcd.sock:1: connect failed: addr: unix:/h/etcd.sock:1 error: "
    assert tidy(socket + "Permission denied") == "Permission denied"
    assert tidy("anything else") == "anything else"
