"""A request is taken from whoever knows the secret, for what was signed, for a while; from nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.cluster.auth import MAX_SKEW, sign, verify

SECRET = b"the cluster's secret"
PATH = "/v1/names?name=a%2Fb"
NOW = 1_700_000_000.0


def test_what_was_signed_is_verified() -> None:
    assert verify(SECRET, sign(SECRET, "GET", PATH), "GET", PATH)
    assert verify(SECRET, sign(SECRET, "get", PATH), "GET", PATH)


@pytest.mark.parametrize(
    ("secret", "method", "path"),
    [
        (b"another", "GET", PATH),
        (b"", "GET", PATH),
        (SECRET, "POST", PATH),
        (SECRET, "GET", "/v1/names?name=a%2Fc"),
        (SECRET, "GET", "/v1/names?name=a/b"),
        (SECRET, "GET", PATH + "&more"),
        (SECRET, "GET", "/v1/peer"),
    ],
)
def test_what_was_signed_otherwise_is_not(secret: bytes, method: str, path: str) -> None:
    assert not verify(SECRET, sign(secret, "GET", PATH), method, path)


@pytest.mark.parametrize(("skew", "taken"), [(0.0, True), (MAX_SKEW - 1, True), (MAX_SKEW + 1, False)])
@pytest.mark.parametrize("sign_of", [1, -1])
def test_clocks_may_differ_a_little(skew: float, taken: bool, sign_of: int) -> None:
    header = sign(SECRET, "GET", PATH, now=NOW)
    assert verify(SECRET, header, "GET", PATH, now=NOW + sign_of * skew) == taken


def test_each_signature_is_new() -> None:
    assert sign(SECRET, "GET", PATH, now=NOW) != sign(SECRET, "GET", PATH, now=NOW)


def test_every_part_counts() -> None:
    moment, nonce, mac = sign(SECRET, "GET", PATH, now=NOW).split(" ")
    later = f"{NOW + 1:.3f}"
    for header in (f"{later} {nonce} {mac}", f"{moment} {'0' * 16} {mac}", f"{moment} {nonce} {'0' * 64}"):
        assert not verify(SECRET, header, "GET", PATH, now=NOW)


@pytest.mark.parametrize(
    "header", ["", " ", "a b", "a b c", "1 2 3 4", "nan 0 0", "inf 0 0", "1e999 0 0", "\udcff é \0", "0 " * 1000]
)
def test_malformed_headers(header: str) -> None:
    assert not verify(SECRET, header, "GET", PATH)


@given(st.text(max_size=60))
def test_no_header_but_a_signature_is_taken(header: str) -> None:
    assert not verify(SECRET, header, "GET", PATH)


def test_a_time_that_is_no_number_is_refused_though_signed() -> None:
    from p2pstore.cluster import auth

    for moment in ("nan", "inf", "-inf"):
        mac = auth._mac(SECRET, "GET", PATH, moment, "n")
        assert not verify(SECRET, f"{moment} n {mac}", "GET", PATH)
