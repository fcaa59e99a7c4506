"""What is signed for one node, at one moment, is good there and then, once."""

from __future__ import annotations

import pytest

from p2pstore.cluster.auth import CLOCK, MAX_HEADER, MAX_SKEW, REPLAY, SECRET, Gate, Signer

KEY = b"the cluster's secret"
OLD = b"the secret before it"
PATH = "/v1/names?name=a%2Fb"
NOW = 1_800_000_000.0


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_what_is_signed_is_let_in_once(gate: Gate) -> None:
    signer = Signer()
    header = signer.sign(KEY, "get", PATH, gate.realm)
    assert gate.refusal([KEY], header, "GET", PATH) == ""
    assert gate.refusal([KEY], header, "GET", PATH) == REPLAY
    assert gate.refusal([KEY], signer.sign(KEY, "GET", PATH, gate.realm), "GET", PATH) == ""


def test_what_is_recorded_is_of_no_use_elsewhere(gate: Gate) -> None:
    header = Signer().sign(KEY, "GET", PATH, gate.realm)
    for other in (Gate(), Gate()):  # another node, or this one when it was started again
        assert other.refusal([KEY], header, "GET", PATH) == SECRET


@pytest.mark.parametrize(
    ("secret", "method", "path"),
    [
        (b"another secret", "GET", PATH),
        (b"", "GET", PATH),
        (KEY, "POST", PATH),
        (KEY, "GET", "/v1/names?name=a%2Fc"),
        (KEY, "GET", "/v1/names?name=a/b"),
        (KEY, "GET", PATH + "&more"),
        (KEY, "GET", "/v1/peer"),
    ],
)
def test_anything_else_is_refused(gate: Gate, secret: bytes, method: str, path: str) -> None:
    header = Signer().sign(secret, "GET", PATH, gate.realm)
    assert gate.refusal([KEY], header, method, path) == SECRET


def test_each_secret_that_holds_is_taken(gate: Gate) -> None:
    signer = Signer()
    for secret in (KEY, OLD):
        assert gate.refusal([KEY, OLD], signer.sign(secret, "GET", PATH, gate.realm), "GET", PATH) == ""
    assert gate.refusal([KEY], signer.sign(OLD, "GET", PATH, gate.realm), "GET", PATH) == SECRET


@pytest.mark.parametrize("skew", [-MAX_SKEW - 1, -MAX_SKEW + 1, 0, MAX_SKEW - 1, MAX_SKEW + 1])
def test_clocks_may_differ_a_little(gate: Gate, skew: float) -> None:
    header = Signer().sign(KEY, "GET", PATH, gate.realm, now=NOW)
    assert gate.refusal([KEY], header, "GET", PATH, now=NOW + skew) == ("" if abs(skew) <= MAX_SKEW else CLOCK)


def test_a_changed_part_is_refused(gate: Gate) -> None:
    parts = Signer().sign(KEY, "GET", PATH, gate.realm, now=NOW).split(" ")
    for at in range(len(parts)):
        changed = [*parts[:at], parts[at][:-1] + ("0" if parts[at][-1] != "0" else "1"), *parts[at + 1 :]]
        assert gate.refusal([KEY], " ".join(changed), "GET", PATH, now=NOW) == SECRET
    assert gate.refusal([KEY], " ".join(parts), "GET", PATH, now=NOW) == ""


@pytest.mark.parametrize(
    "header", ["", " ", "a b c", "a b c d", "nan a 1 d", "\udcff a 1 é", "1 2 3 4 5", "x" * (MAX_HEADER + 1)]
)
def test_garbage_is_refused(gate: Gate, header: str) -> None:
    assert gate.refusal([KEY], header, "GET", PATH) == SECRET
